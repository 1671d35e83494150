"""The probe before training: its measurements, and that it preserves all state."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from test_distiller import batch, detector, distiller
from test_engine import assert_equal, facts, newest_checkpoint, values
from tiny import ARCHITECTURES, Train, described, job, of

from frs import events
from frs.dataset.splits import LoadedSplits
from frs.distillation.distiller import Distiller, LossWeights
from frs.distillation.teacher import fingerprint
from frs.engine import stages
from frs.engine.checkpoints import random_state
from frs.errors import BatchTooLarge, NoGradient
from frs.preflight import probe as probe_module
from frs.preflight.context import RunContext
from frs.preflight.probe import (
    Probe,
    ProbeConfig,
    check_gradients,
    check_memory,
    first_images,
    kept_bytes,
    largest_fitting,
    probe,
)
from frs.preflight.setup import Models, check_teacher
from frs.preflight.step_runner import StepRunner
from frs.schedule_spec import Schedule
from frs.training import batches, memory, process_group

ADAMW = Schedule.model_validate({"optimizer": {"name": "adamw"}})
ONE_STEP = ProbeConfig(nullcontext, ADAMW, "adamw", repeats=1, estimate_memory=False)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_probe_measures_every_term_and_preserves_all_state(architecture: str) -> None:
    model = distiller(architecture)
    model.student.neck.train(False)
    raw = batch()
    before, random_before = fingerprint(model), random_state()
    result = probe(model, raw, ONE_STEP)
    assert result.gradients.keys() == {"task", "feature", "logit"}
    assert min(result.gradients.values()) > 0 and result.seconds > 0
    assert result.peak_bytes > 2 * 4 * sum(p.numel() for p in model.parameters())
    assert fingerprint(model) == before
    assert_equal(random_state(), random_before)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert model.student.training and not model.student.neck.training


def test_the_probe_of_a_student_without_teacher_measures_the_task_gradient() -> None:
    result = probe(detector(), batch(), ONE_STEP)
    assert result.gradients.keys() == {"task"} and result.gradients["task"] > 0
    check_gradients(result)


def test_the_memory_of_a_step_includes_what_training_keeps() -> None:
    model = distiller("gfl")
    trained = sum(4 * p.numel() for p in model.parameters() if p.requires_grad)
    student = sum(t.numel() * t.element_size() for t in model.student.state_dict().values())
    assert kept_bytes(model, ADAMW, "adamw") == 2 * trained
    assert kept_bytes(model, ADAMW.model_copy(update={"accumulate": 4}), "adamw") == 3 * trained
    assert kept_bytes(model, ADAMW.model_copy(update={"ema": 0.999}), "adamw") == 2 * trained + student


def test_the_probe_restores_running_means() -> None:
    model = detector(backbone={"depth": 18, "width": 8, "norm": "frozen_bn"})
    model.neck.norm = torch.nn.BatchNorm2d(16)
    model.neck.register_forward_hook(lambda module, _, levels: tuple(module.norm(level) for level in levels))
    before = fingerprint(model)
    probe(model, batch(), ONE_STEP)
    assert fingerprint(model) == before


@pytest.mark.parametrize("architecture", ["gfl", pytest.param("faster_rcnn", marks=pytest.mark.slow)])
def test_a_run_with_the_probe_equals_one_without(
    train: Train, tmp_path: Path, architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    auto = {"feature_weight": "auto", "logit_weight": "auto"}
    spec = job(teacher=described(architecture, neck_channels=32), student=described(architecture), distillation=auto)
    with_probe = train(spec, tmp_path / "with_probe")
    assert "probing" in [phase.phase for phase in of(events.Phase, with_probe)]

    def check_only_the_teacher(context: RunContext, data: LoadedSplits, models: Models, steps: StepRunner) -> None:
        steps.run("teacher_not_competent", check_teacher, context, data, models.teacher)

    monkeypatch.setattr(stages, "preflight", check_only_the_teacher)
    without_probe = train(spec, tmp_path / "without_probe")
    assert "probing" not in [phase.phase for phase in of(events.Phase, without_probe)]
    assert values(without_probe) == values(with_probe)
    assert_equal(newest_checkpoint(tmp_path / "without_probe"), newest_checkpoint(tmp_path / "with_probe"))


def test_gradients_are_checked_on_the_first_batch_that_has_boxes(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crop of `augmentation: strong` may leave a batch without any; mask `boxes` is then 0 everywhere."""
    read, drawn = batches.DetectionImages.__getitem__, []

    def crop_all_boxes_of_the_first(images: batches.DetectionImages, draw: Any) -> dict[str, Any]:
        results = read(images, draw)
        drawn.append(draw)
        if len(drawn) <= 3:
            results["data_samples"].gt_instances = results["data_samples"].gt_instances[:0]
        return results

    monkeypatch.setattr(batches.DetectionImages, "__getitem__", crop_all_boxes_of_the_first)
    emitted = train(job(method="boxes", schedule={"max_steps": 1, "batch_size": 1, "epochs": None}))
    assert min(facts(emitted)["gradients_at_start"].values()) > 0


def test_only_the_first_attempt_runs_the_probe(train: Train) -> None:
    train(job(schedule={"max_steps": 4}))
    again = train(job(schedule={"max_steps": 4}))
    assert "probing" not in [phase.phase for phase in of(events.Phase, again)]


@pytest.mark.parametrize(("max_steps", "images"), [(4, [4]), (5, [1, 2, 4])])
def test_a_short_run_is_probed_with_a_single_step(
    train: Train, monkeypatch: pytest.MonkeyPatch, max_steps: int, images: list[int]
) -> None:
    probed_sizes: list[int] = []
    run_step = probe_module.run_step

    def record_size(model: Any, raw: dict[str, Any], precision: Any) -> Any:
        probed_sizes.append(len(raw["inputs"]))
        return run_step(model, raw, precision)

    monkeypatch.setattr(probe_module, "run_step", record_size)
    train(job(schedule={"max_steps": max_steps}))
    assert probed_sizes == images


def test_a_term_without_a_gradient_stops_the_run_and_is_named(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    forward_both = Distiller.forward_both

    def detach_logit_term(self: Any, data: Any) -> Any:
        outputs = forward_both(self, data)
        outputs.terms["logit"] = outputs.terms["logit"].detach()
        return outputs

    monkeypatch.setattr(Distiller, "forward_both", detach_logit_term)
    with pytest.raises(NoGradient, match="from: logit"):
        train(job())


def test_a_tiny_gradient_passes_and_a_zero_gradient_is_rejected() -> None:
    check_gradients(Probe(1.0, 1, {"feature": 1e-9, "task": 1.0}))
    with pytest.raises(NoGradient, match="feature, task"):
        check_gradients(Probe(1.0, 1, {"feature": 0.0, "task": 0.0}))


def test_a_term_with_weight_zero_needs_no_gradient() -> None:
    result = probe(distiller(weights=LossWeights(1.0, 0.0)), batch(), ONE_STEP)
    assert result.gradients.keys() == {"feature", "task"}


def test_a_batch_that_exceeds_the_memory_is_rejected_with_the_size_that_fits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory, "resident_bytes", lambda: 1000)
    check_memory(16, first=1100, each=100, available=1600)
    with pytest.raises(BatchTooLarge, match=r"batch_size 17 does not fit.*; 16 does"):
        check_memory(17, first=1100, each=100, available=1600)
    with pytest.raises(BatchTooLarge, match="nor does 1"):
        check_memory(2, first=2700, each=0, available=1600)
    check_memory(10_000, first=1100, each=-100, available=1600)
    check_memory(10_000, first=1100, each=100, available=None)


def test_a_run_that_does_not_fit_ends_before_its_first_epoch(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda: 50 * 2**20)
    with pytest.raises(BatchTooLarge, match="batch_size 8 does not fit") as error:
        train(job(schedule={"batch_size": 8, "image_size": [480, 480], "epochs": 3}))
    assert error.value.code == "batch_too_large" and error.value.end_reason == "out_of_memory"
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize("fitting", [0, 1, 7, 10, 15])
def test_the_largest_batch_that_fits_is_found(fitting: int) -> None:
    assert largest_fitting(lambda images: images <= fitting, 16) == fitting


def test_a_process_whose_gpu_is_full_ends_without_waiting_for_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """They wait for it in a reduction of the step, which another reduction would answer with wrong values."""

    def run_out_of_memory(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    for module in (probe_module, process_group):
        monkeypatch.setattr(module, "world_size", lambda: 2)
    monkeypatch.setattr(process_group.dist, "all_reduce", lambda *_, **__: pytest.fail("a reduction"))
    monkeypatch.setattr(probe_module, "run_step", run_out_of_memory)
    with pytest.raises(BatchTooLarge, match="batch_size 4 does not fit 2 devices"):
        probe_module.probe_gpu(detector(), batch(), ONE_STEP, torch.device("cpu"), 100)


def test_a_full_gpu_is_probed_again_with_fewer_images(monkeypatch: pytest.MonkeyPatch) -> None:
    batch_sizes: list[int] = []

    def small_gpu_step(_: Any, raw: dict[str, Any], __: Any) -> tuple[float, dict[str, float]]:
        batch_sizes.append(len(raw["inputs"]))
        if batch_sizes[-1] > 5:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return 1.0, {"task": 1.0}

    monkeypatch.setattr(probe_module, "run_step", small_gpu_step)
    raw = {name: values * 4 for name, values in batch().items()}
    with pytest.raises(BatchTooLarge, match="batch_size 8 does not fit; 5 does"):
        probe_module.probe_gpu(detector(), raw, ONE_STEP, torch.device("cpu"), 100)
    assert batch_sizes == [8, 4, 6, 5]
    assert probe_module.probe_gpu(detector(), first_images(raw, 5), ONE_STEP, torch.device("cpu"), 100).seconds == 1.0


def test_first_images_cuts_every_part_of_a_batch() -> None:
    raw = batch()
    raw["unlabelled"] = dict(raw)
    cut = first_images(raw, 1)
    assert len(cut["inputs"]) == len(cut["data_samples"]) == len(cut["unlabelled"]["inputs"]) == 1
    assert cut["inputs"][0] is raw["inputs"][0]


def test_the_peak_includes_memory_that_is_freed_again() -> None:
    cpu = torch.device("cpu")
    idle = memory.peak_bytes(lambda: None, cpu)
    assert memory.peak_bytes(lambda: torch.ones(2**26), cpu) - idle > 200 * 2**20  # 256 MiB
    available = memory.available_bytes()
    assert available is not None and available > 0


def test_the_measured_gradients_are_emitted(train: Train) -> None:
    emitted = facts(train(job(schedule={"max_steps": 1})))
    assert emitted["gradients_at_start"].keys() == {"task", "feature", "logit"}
