"""Two processes with half of every batch each do what one does with all of it."""

import copy
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from test_distiller import distiller
from test_engine import assert_equal, newest_checkpoint
from tiny import ARCHITECTURES, described, job
from torch import Tensor, multiprocessing

from frs import events
from frs.detectors import loading
from frs.detectors.heads import CLASS_CONVOLUTION, dense_head
from frs.distillation.calibration import calibrate, measure
from frs.distillation.distiller import Distiller, LossWeights
from frs.engine import stages
from frs.engine.checkpoints import random_states_in
from frs.evaluation.coco_scores import Scores
from frs.preflight.setup import TrainingSetup
from frs.resolved import ResolvedSpec, resolve
from frs.spec import JobSpec
from frs.training import process_group
from frs.training.precision import AutocastOptimWrapper
from frs.training.stop_request import Interrupted, StopRequest

WHOLE = ("fcos", "gfl")
"""Their heads in mmdet count positives over all processes; the others' average per process."""
SIZE, STEPS = 64, 50
Found = dict[str, Any]


def two(work: Callable[..., Found], folder: Path, *arguments: Any) -> list[Found]:
    """What `work` finds in each of two processes that are joined by gloo."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    multiprocessing.spawn(_one_of_two, (work, folder, arguments), nprocs=2)
    return [torch.load(folder / f"found-{rank}.pth", weights_only=False) for rank in range(2)]  # noqa: TID251


def _one_of_two(rank: int, work: Callable[..., Found], folder: Path, arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    with process_group.process_group(rank, 2, folder / "store", gpus=False):
        torch.save(work(*arguments), folder / f"found-{rank}.pth")


def batch(seed: int = 0) -> dict[str, Any]:
    """This process's share of four raw images, with boxes of their own: the richness of the halves differs."""
    random = torch.Generator().manual_seed(seed)
    samples, inputs = [], []
    for image in range(4):
        meta = {"img_shape": (SIZE, SIZE), "ori_shape": (SIZE, SIZE), "scale_factor": (1.0, 1.0)}
        sample = DetDataSample(metainfo=meta)
        corner = torch.rand(image + 1, 2, generator=random) * SIZE / 2
        sides = 8 + torch.rand(image + 1, 2, generator=random) * (SIZE / 2 - 8)
        labels = torch.randint(0, 3, (image + 1,), generator=random)
        sample.gt_instances = InstanceData(bboxes=torch.cat([corner, corner + sides], 1), labels=labels)
        sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))
        samples.append(sample)
        inputs.append(torch.randint(0, 60 * (image + 1), (3, SIZE, SIZE), dtype=torch.uint8, generator=random))
    return {"inputs": process_group.shard(inputs), "data_samples": process_group.shard(samples)}


def student_of(architecture: str) -> Distiller:
    model = distiller(architecture, LossWeights(0.01, 0.1, ramp_from=-4), diagnose_every=1000)
    # untrained detectors agree so well that their divergence is the rounding of single precision: the teacher gets opinions
    head = dense_head(model.teacher.detector)
    getattr(head, CLASS_CONVOLUTION.get(type(head).__name__, "rpn_cls")).weight.data *= 50
    if architecture == "gfl":
        # mmdet divides by the sum of the positives' scores in a process, but by no less than 1: of an untrained head's
        # scores on so few pixels, that makes the half of a batch count twice
        torch.nn.init.zeros_(model.student.bbox_head.gfl_cls.bias)
    return model.train()


def gradient(model: Distiller, loss: Tensor) -> Tensor:
    """Of all parameters, averaged over processes, as one vector."""
    model.zero_grad()
    loss.backward(retain_graph=True)
    process_group.average_gradients(model.parameters())
    return torch.cat([p.grad.reshape(-1) for p in model.parameters() if p.grad is not None])


def one_step(model: Distiller) -> Found:
    outputs = model.forward_both(batch())
    task, _ = model.student.parse_losses(outputs.losses)
    found: Found = {name: process_group.all_reduce_mean(term.detach()) for name, term in outputs.terms.items()}
    found |= {f"gradient of {name}": gradient(model, term) for name, term in outputs.terms.items()}
    return found | {"whole gradient": gradient(model, task + model.weigh(outputs.terms))}


def train(model: Distiller) -> Found:
    wrapper = AutocastOptimWrapper(
        "fp32", "cpu", optimizer=torch.optim.SGD(model.parameters(), lr=1e-3), clip_grad={"max_norm": 10}
    )
    for step in range(STEPS):
        model.step = step
        model.train_step(batch(step), wrapper)
    return {"state": {name: parameter.detach().clone() for name, parameter in model.named_parameters()}}


def everything(trained: dict[str, Any]) -> Found:
    """Of every detector one step; of those whose loss is whole, also `STEPS` steps, and a step at the weights `trained`."""
    found: Found = {name: one_step(student_of(name)) for name in ARCHITECTURES}
    for name in WHOLE:
        model = student_of(name)
        found[name] |= train(model)
        model.load_state_dict(trained.get(name, {}), strict=False)
        found[name]["trained"] = one_step(model)
    model = student_of("gfl")
    found["norms"] = measure(model, batch())
    model.weights = LossWeights(None, None)
    found["calibrated"] = vars(calibrate(model, [batch(1), batch(2)]))
    return found


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[Found, list[Found]]:
    """`everything`, by one process and by two."""
    one = everything({})
    trained = {name: copy.deepcopy(one[name]["state"]) for name in WHOLE}
    return one, two(everything, tmp_path_factory.mktemp("two"), trained)


def difference(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_terms_and_their_gradients_are_one_processs(found: Any, architecture: str) -> None:
    one = found[0][architecture]
    for other in found[1]:
        for name in ("feature", "logit"):
            assert difference(other[architecture][name], one[name]) < 1e-5
            assert difference(other[architecture][f"gradient of {name}"], one[f"gradient of {name}"]) < 1e-5


@pytest.mark.parametrize("architecture", WHOLE)
def test_the_whole_gradient_is_one_processs_after_fifty_steps_too(found: Any, architecture: str) -> None:
    one, (other, _) = found[0][architecture], (each[architecture] for each in found[1])
    assert difference(other["whole gradient"], one["whole gradient"]) < 1e-5
    assert difference(other["trained"]["whole gradient"], one["trained"]["whole gradient"]) < 1e-5


@pytest.mark.parametrize("architecture", WHOLE)
def test_fifty_steps_lead_where_one_processs_lead(found: Any, architecture: str) -> None:
    start = vector(dict(student_of(architecture).named_parameters()))
    ours, theirs = (vector(each["state"]) - start for each in (found[1][0][architecture], found[0][architecture]))
    print(f"{architecture}: {STEPS} steps of two processes end {difference(ours, theirs):.1e} of the way apart")
    assert theirs.norm() > 1e-3 * start.norm()
    assert difference(ours, theirs) < 1e-4


def vector(named: dict[str, Tensor]) -> Tensor:
    return torch.cat([tensor.detach().double().reshape(-1) for tensor in named.values()])


@pytest.mark.parametrize("architecture", sorted(set(ARCHITECTURES) - set(WHOLE)))
def test_heads_that_average_per_process_differ_by_so_much(found: Any, architecture: str) -> None:
    one, other = found[0][architecture]["whole gradient"], found[1][0][architecture]["whole gradient"]
    print(f"{architecture}: whole gradient of two processes differs from one's by {difference(other, one):.1e} of it")
    assert torch.isfinite(other).all()


def test_calibration_finds_what_one_process_finds(found: Any) -> None:
    one, (first, second) = found
    assert first["norms"] == pytest.approx(one["norms"], rel=1e-5) and first["norms"] == second["norms"]
    assert first["calibrated"] == pytest.approx(one["calibrated"], rel=1e-3)  # after 60 steps of Adam
    assert first["calibrated"] == second["calibrated"]


def test_two_processes_end_with_the_same_weights(found: Any) -> None:
    first, second = found[1]
    for name in WHOLE:
        assert_equal(first[name]["state"], second[name]["state"])


def run_engine(spec: ResolvedSpec, workdir: Path, stop_rank_1_at: int | None = None) -> list[events.Event]:
    told: list[events.Event] = []
    stop = StopRequest()

    def emit(event: events.Event) -> None:
        told.append(event)
        if process_group.rank() == 1 and isinstance(event, events.Metrics) and event.step == stop_rank_1_at:
            stop.ask()

    workdir.mkdir(exist_ok=True)
    try:
        stages.run(spec, workdir, emit, stop)
    except Interrupted:
        told.append(events.Outcome(status="interrupted"))
    return told


def whole_and_in_parts(spec: ResolvedSpec, folder: Path) -> Found:
    whole = run_engine(spec, folder / "whole")
    parts = [run_engine(spec, folder / "parts", stop_rank_1_at=at) for at in (3, None)]
    return {"whole": losses(whole), "parts": [losses(part) for part in parts], "scores": scores(spec, folder)}


def losses(told: list[events.Event]) -> dict[int, Any]:
    metrics = [event for event in told if isinstance(event, events.Metrics)]
    return {event.step: event.values["train/loss"] for event in metrics if "train/loss" in event.values}


def scores(spec: ResolvedSpec, folder: Path) -> Scores:
    """Of an untrained student that is sure of everything."""
    setup = TrainingSetup(spec, folder, lambda event: None)
    setup.read_data()
    torch.manual_seed(0)
    student = loading.load_detector(spec.student, setup.data.classes, spec.models)
    student.rpn_head.test_cfg.score_thr = student.roi_head.test_cfg.score_thr = 0.0
    return setup.evaluate(student)


@pytest.fixture(scope="module")
def runs(data: Path, models: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[ResolvedSpec, Path, list[Found]]:
    rcnn = {"teacher": described("faster_rcnn", neck_channels=32), "student": described("faster_rcnn")}
    spec = resolve(JobSpec.model_validate(job(**rcnn, resources={"devices": 0, "processes": 2})), data, models)
    folder = tmp_path_factory.mktemp("runs")
    return spec, folder, two(whole_and_in_parts, folder, spec, folder)


def test_a_stop_asked_of_one_process_stops_all_and_the_rest_is_as_if_it_had_not(runs: Any) -> None:
    _, folder, (first, second) = runs
    assert first == second
    stopped, rest = first["parts"]
    assert list(stopped) == [1, 2, 3] and stopped | rest == first["whole"]
    one, other = newest_checkpoint(folder / "whole"), newest_checkpoint(folder / "parts")
    assert_equal(one, other)


def test_the_checkpoint_has_every_processs_random_state(runs: Any) -> None:
    first, second = random_states_in(newest_checkpoint(runs[1] / "whole"))
    assert not torch.equal(first["torch"], second["torch"])


def test_scores_of_shared_images_are_one_processs(runs: Any, tmp_path: Path) -> None:
    spec, _, (first, second) = runs
    alone = scores(spec, tmp_path)
    assert alone.detections > 0
    assert first["scores"] == second["scores"] == alone


def test_a_run_of_two_processes_is_gone_on_from_by_one(runs: Any, tmp_path: Path) -> None:
    spec, folder, _ = runs
    (tmp_path / "one").mkdir()
    (folder / "parts" / "checkpoints").rename(tmp_path / "one" / "checkpoints")
    newest = sorted((tmp_path / "one" / "checkpoints").iterdir())[-1]
    newest.unlink()  # so that there is something left to do
    told = run_engine(spec, tmp_path / "one")
    logs = [event.message for event in told if isinstance(event, events.Log)]
    assert any("of a run of 2 process(es), this one has 1" in message for message in logs)
    assert max(losses(told)) == max(losses_of(runs))


def losses_of(runs: Any) -> dict[int, Any]:
    return runs[2][0]["whole"]
