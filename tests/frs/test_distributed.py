"""Two processes with half of every batch each train like one process with whole batches."""

import copy
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.logging import MessageHub
from mmengine.structures import InstanceData
from test_distiller import distiller
from test_engine import assert_equal, newest_checkpoint
from tiny import ARCHITECTURES, described, job
from torch import Tensor, multiprocessing
from torch.distributed import FileStore

from frs import events
from frs.dataset.splits import load_splits
from frs.detectors import loading
from frs.detectors.heads import dense_head
from frs.distillation.calibration import calibrate, measure_gradient_norms
from frs.distillation.distiller import Distiller, LossWeights
from frs.distillation_spec import METHODS, Method
from frs.engine import stages
from frs.engine.checkpoints import random_states_in
from frs.evaluation.coco_scores import Scores
from frs.preflight.context import open_context
from frs.resolved import ResolvedSpec, resolve
from frs.spec import JobSpec
from frs.training import process_group
from frs.training.acceleration import to_device
from frs.training.precision import AutocastOptimWrapper
from frs.training.stop_request import Interrupted, StopRequest

EXACT_ARCHITECTURES = ("fcos", "gfl")
"""Architectures whose heads in mmdet count positives over all processes. The others average per process."""
BATCH_NORM_ARCHITECTURES = ("rtmdet", "yolox")
"""Architectures whose heads normalise with the statistics of the batch, on the CPU those of a process's part of it."""
MODULE_METHODS = [method for method, terms in METHODS.items() if terms.module]
SIZE, STEPS = 64, [25, pytest.param(50, marks=pytest.mark.slow)]
Results = dict[str, Any]


def run_in_two_processes(work: Callable[..., Results], folder: Path, *arguments: Any) -> list[Results]:
    """Return the results of `work` in each of two processes that are connected by gloo."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    multiprocessing.set_forkserver_preload([__name__])  # torch and mmdet are imported once for all processes
    multiprocessing.start_processes(_run_rank, (work, folder, arguments), nprocs=2, start_method="forkserver")
    return [torch.load(folder / f"results-{rank}.pth", weights_only=False) for rank in range(2)]  # noqa: TID251


def _run_rank(rank: int, work: Callable[..., Results], folder: Path, arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    with process_group.process_group(rank, 2, FileStore(str(folder / "store"), 2)):
        torch.save(work(*arguments), folder / f"results-{rank}.pth")


def batch(seed: int = 0) -> dict[str, Any]:
    """Return this process's part of four raw images. Their boxes differ, so the richness of the two parts differs."""
    random = torch.Generator().manual_seed(seed)
    samples, inputs = [], []
    for image in range(4):
        meta = {"img_shape": (SIZE, SIZE), "ori_shape": (SIZE, SIZE), "scale_factor": (1.0, 1.0)}
        sample = DetDataSample(metainfo=meta)
        corner = torch.rand(image + 1, 2, generator=random) * SIZE / 2
        size = 8 + torch.rand(image + 1, 2, generator=random) * (SIZE / 2 - 8)
        labels = torch.randint(0, 3, (image + 1,), generator=random)
        sample.gt_instances = InstanceData(bboxes=torch.cat([corner, corner + size], 1), labels=labels)
        sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))
        samples.append(sample)
        inputs.append(torch.randint(0, 60 * (image + 1), (3, SIZE, SIZE), dtype=torch.uint8, generator=random))
    return {"inputs": process_group.shard(inputs), "data_samples": process_group.shard(samples)}


def build_model(architecture: str, method: Method = "frs") -> Distiller:
    MessageHub.get_current_instance().update_info("epoch", 0)  # TOOD's loss reads it
    model = distiller(architecture, LossWeights(0.01, 0.1, ramp_from=-4), method=method, diagnose_every=1000)
    # the logits of untrained detectors are so similar that their divergence is rounding error: enlarge the teacher's
    head = dense_head(model.teacher.detector)
    for name, parameter in head.named_parameters():
        if re.search(r"_cls(\.\d)?\.weight$", name):
            parameter.data *= 50
    if architecture == "gfl":
        # mmdet divides by the sum of the positives' scores in a process, but at least by 1; with the low scores of an
        # untrained head on so few pixels, half of a batch would count twice
        torch.nn.init.zeros_(model.student.bbox_head.gfl_cls.bias)
    return to_device(model, torch.device("cpu")).train()


def gradient(model: Distiller, loss: Tensor) -> Tensor:
    """Return the gradient of all parameters as one vector, averaged over processes."""
    model.zero_grad()
    loss.backward(retain_graph=True)
    process_group.average_gradients(model.parameters())
    return torch.cat([p.grad.reshape(-1) for p in model.parameters() if p.grad is not None])


def one_step(model: Distiller) -> Results:
    outputs = model.forward_both(batch())
    task, _ = model.student.parse_losses(outputs.losses)
    results: Results = {name: process_group.all_reduce_mean(term.detach()) for name, term in outputs.terms.items()}
    results |= {f"gradient of {name}": gradient(model, term) for name, term in outputs.terms.items()}
    return results | {"whole gradient": gradient(model, task + model.weigh(outputs.terms))}


def train(model: Distiller, steps: int, accumulate: int) -> Results:
    """Train on `steps` batches and update the parameters after every `accumulate` of them."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3 * accumulate)
    wrapper = AutocastOptimWrapper(
        "fp32", "cpu", optimizer=optimizer, clip_grad={"max_norm": 10}, accumulative_counts=accumulate
    )
    for step in range(steps):
        model.train_step(batch(step), wrapper, step)
    return {"state": {name: parameter.detach().clone() for name, parameter in model.named_parameters()}}


def all_results(steps: int, trained: dict[str, Any]) -> Results:
    """Return the results of one step of every detector.

    For `EXACT_ARCHITECTURES`, add `steps` steps, and one step from the weights `trained`.
    """
    results: Results = {name: one_step(build_model(name)) for name in ARCHITECTURES}
    results |= {method: one_step(build_model("gfl", method)) for method in MODULE_METHODS}
    for name in EXACT_ARCHITECTURES:
        model = build_model(name)
        results[name] |= train(model, steps, accumulate=2 if name == "gfl" else 1)
        model.load_state_dict(trained.get(name, {}), strict=False)
        results[name]["trained"] = one_step(model)
    model = build_model("gfl")
    results["norms"] = measure_gradient_norms(model, batch())
    model.weights = LossWeights(None, None)
    results["calibrated"] = vars(calibrate(model, [batch(1), batch(2)], step=0))
    return results


@pytest.fixture(scope="module", params=STEPS)
def results(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Results, list[Results]]:
    """The results of one process and of two."""
    one = all_results(request.param, {})
    trained = {name: copy.deepcopy(one[name]["state"]) for name in EXACT_ARCHITECTURES}
    return one, run_in_two_processes(all_results, tmp_path_factory.mktemp("two"), request.param, trained)


def relative_difference(actual: Tensor, expected: Tensor) -> float:
    return float((actual - expected).norm() / expected.norm())


@pytest.mark.parametrize("architecture", sorted(set(ARCHITECTURES) - set(BATCH_NORM_ARCHITECTURES)))
def test_terms_and_their_gradients_equal_those_of_one_process(results: Any, architecture: str) -> None:
    one = results[0][architecture]
    for other in results[1]:
        for name in ("feature", "logit"):
            assert relative_difference(other[architecture][name], one[name]) < 1e-5
            assert relative_difference(other[architecture][f"gradient of {name}"], one[f"gradient of {name}"]) < 1e-5


@pytest.mark.parametrize("method", MODULE_METHODS)
def test_the_term_of_a_module_and_its_gradient_equal_those_of_one_process(results: Any, method: Method) -> None:
    one = results[0][method]
    for other in results[1]:
        for name in {*METHODS[method].names, *(f"gradient of {name}" for name in METHODS[method].names)}:
            assert relative_difference(other[method][name], one[name]) < 1e-5


@pytest.mark.parametrize("architecture", EXACT_ARCHITECTURES)
def test_the_whole_gradient_equals_that_of_one_process_also_after_many_steps(results: Any, architecture: str) -> None:
    one, (other, _) = results[0][architecture], (result[architecture] for result in results[1])
    assert relative_difference(other["whole gradient"], one["whole gradient"]) < 1e-5
    assert relative_difference(other["trained"]["whole gradient"], one["trained"]["whole gradient"]) < 1e-5


@pytest.mark.parametrize("architecture", EXACT_ARCHITECTURES)
def test_many_steps_end_at_the_weights_of_one_process(results: Any, architecture: str) -> None:
    start = vector(dict(build_model(architecture).named_parameters()))
    runs = (results[1][0][architecture], results[0][architecture])
    actual, expected = (vector(run["state"]) - start for run in runs)
    distance = relative_difference(actual, expected)
    print(f"{architecture}: after many steps of two processes, the update differs by {distance:.1e}")
    assert expected.norm() > 1e-3 * start.norm()
    assert distance < 1e-4


def vector(named: dict[str, Tensor]) -> Tensor:
    return torch.cat([tensor.detach().double().reshape(-1) for tensor in named.values()])


@pytest.mark.parametrize("architecture", sorted(set(ARCHITECTURES) - set(EXACT_ARCHITECTURES)))
def test_heads_that_average_per_process_have_a_finite_gradient(results: Any, architecture: str) -> None:
    one, other = results[0][architecture]["whole gradient"], results[1][0][architecture]["whole gradient"]
    print(f"{architecture}: the whole gradient of two processes differs by {relative_difference(other, one):.1e}")
    assert torch.isfinite(other).all()


def test_calibration_equals_that_of_one_process(results: Any) -> None:
    one, (first, second) = results
    assert first["norms"] == pytest.approx(one["norms"], rel=1e-5) and first["norms"] == second["norms"]
    assert first["calibrated"] == pytest.approx(one["calibrated"], rel=1e-3)  # after 60 steps of Adam
    assert first["calibrated"] == second["calibrated"]


def test_two_processes_end_with_the_same_weights(results: Any) -> None:
    first, second = results[1]
    for name in EXACT_ARCHITECTURES:
        assert_equal(first[name]["state"], second[name]["state"])


def run_engine(spec: ResolvedSpec, workdir: Path, stop_rank_1_at: int | None = None) -> list[events.Event]:
    emitted: list[events.Event] = []
    stop = StopRequest()

    def emit(event: events.Event) -> None:
        emitted.append(event)
        if process_group.rank() == 1 and isinstance(event, events.Metrics) and event.step == stop_rank_1_at:
            stop.request()

    workdir.mkdir(exist_ok=True)
    try:
        stages.run(spec, workdir, emit, stop)
    except Interrupted:
        emitted.append(events.Outcome(status="interrupted"))
    return emitted


def whole_and_in_parts(spec: ResolvedSpec, folder: Path) -> Results:
    whole = run_engine(spec, folder / "whole")
    parts = [run_engine(spec, folder / "parts", stop_rank_1_at=at) for at in (3, None)]
    return {"whole": losses(whole), "parts": [losses(part) for part in parts], "scores": scores(spec, folder)}


def losses(emitted: list[events.Event]) -> dict[int, Any]:
    metrics = [event for event in emitted if isinstance(event, events.Metrics)]
    return {event.step: event.values["train/loss"] for event in metrics if "train/loss" in event.values}


def scores(spec: ResolvedSpec, folder: Path) -> Scores:
    """Return the scores of an untrained student that reports every box."""
    context = open_context(spec, folder, lambda event: None)
    data = load_splits(spec, lambda done, total: None)
    torch.manual_seed(0)
    student = loading.load_detector(spec.student, data.classes, spec.models)
    student.rpn_head.test_cfg.score_thr = student.roi_head.test_cfg.score_thr = 0.0
    return context.evaluate(student, data.val)[0]


@pytest.fixture(scope="module")
def runs(
    data: Path, models: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[ResolvedSpec, Path, list[Results]]:
    rcnn = {"teacher": described("faster_rcnn", neck_channels=32), "student": described("faster_rcnn")}
    options = {"batch_size": 2, "accumulate": 2, "ema": 0.9, "augmentation": "strong"}
    resources = {"devices": 0, "processes": 2}
    spec = resolve(JobSpec.model_validate(job(**rcnn, schedule=options, resources=resources)), data, models)
    folder = tmp_path_factory.mktemp("runs")
    return spec, folder, run_in_two_processes(whole_and_in_parts, folder, spec, folder)


def test_a_stop_request_in_one_process_stops_all_and_the_resumed_run_equals_a_whole_one(runs: Any) -> None:
    _, folder, (first, second) = runs
    assert first == second
    stopped, resumed = first["parts"]
    assert list(stopped) == [1, 2, 3] and stopped | resumed == first["whole"]
    one, other = newest_checkpoint(folder / "whole"), newest_checkpoint(folder / "parts")
    assert_equal(one, other)


def test_the_checkpoint_has_the_random_state_of_every_process(runs: Any) -> None:
    first, second = random_states_in(newest_checkpoint(runs[1] / "whole"))
    assert not torch.equal(first["torch"], second["torch"])


def test_scores_of_a_sharded_evaluation_equal_those_of_one_process(runs: Any, tmp_path: Path) -> None:
    spec, _, (first, second) = runs
    expected = scores(spec, tmp_path)
    assert expected.detections > 0
    assert first["scores"] == second["scores"] == expected


def test_one_process_can_resume_a_run_of_two(runs: Any, tmp_path: Path) -> None:
    spec, folder, _ = runs
    (tmp_path / "one").mkdir()
    (folder / "parts" / "checkpoints").rename(tmp_path / "one" / "checkpoints")
    newest = sorted((tmp_path / "one" / "checkpoints").iterdir())[-1]
    newest.unlink()  # so that the resumed run has steps left
    emitted = run_engine(spec, tmp_path / "one")
    logs = [event.message for event in emitted if isinstance(event, events.Log)]
    assert any("from a run with 2 process(es), this run has 1." in message for message in logs)
    assert max(losses(emitted)) == max(losses_of(runs))


def losses_of(runs: Any) -> dict[int, Any]:
    return runs[2][0]["whole"]
