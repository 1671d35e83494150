"""The step before the first: what it finds, and that it leaves no trace."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from test_distiller import batch, detector, distiller
from test_engine import assert_equal, facts, newest_checkpoint, values
from tiny import ARCHITECTURES, Train, described, job, of

from frs import events
from frs.distillation.distiller import Distiller, LossWeights
from frs.distillation.teacher import fingerprint
from frs.engine.checkpoints import random_state
from frs.errors import BatchTooLarge, NoGradient
from frs.preflight import probe as probing
from frs.preflight.probe import Probe, ProbeConfig, check_gradients, check_memory, largest_fitting, part, probe
from frs.preflight.setup import TrainingSetup
from frs.training import memory

ONCE = ProbeConfig(nullcontext, states=2, repeats=1, estimate_memory=False)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_probe_tells_of_every_term_and_leaves_no_trace(architecture: str) -> None:
    model = distiller(architecture)
    model.student.neck.train(False)
    raw = batch()
    before, random_before = fingerprint(model), random_state()
    found = probe(model, raw, ONCE)
    assert found.gradients.keys() == {"task", "feature", "logit"}
    assert min(found.gradients.values()) > 0 and found.seconds > 0
    assert found.peak_bytes > 2 * 4 * sum(p.numel() for p in model.parameters())
    assert fingerprint(model) == before
    assert_equal(random_state(), random_before)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert model.student.training and not model.student.neck.training


def test_a_student_alone_is_probed_by_its_task() -> None:
    found = probe(detector(), batch(), ONCE)
    assert found.gradients.keys() == {"task"} and found.gradients["task"] > 0
    check_gradients(found)


def test_a_running_mean_is_put_back() -> None:
    model = detector(backbone={"depth": 18, "width": 8, "norm": "frozen_bn"})
    model.neck.norm = torch.nn.BatchNorm2d(16)
    model.neck.register_forward_hook(lambda module, _, levels: tuple(module.norm(level) for level in levels))
    before = fingerprint(model)
    probe(model, batch(), ONCE)
    assert fingerprint(model) == before


@pytest.mark.parametrize("architecture", ["gfl", "faster_rcnn"])
def test_a_run_with_the_probe_equals_one_without(
    train: Train, tmp_path: Path, architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    auto = {"feature_weight": "auto", "logit_weight": "auto"}
    spec = job(teacher=described(architecture, neck_channels=32), student=described(architecture), distillation=auto)
    probed = train(spec, tmp_path / "probed")
    assert "probing" in [phase.phase for phase in of(events.Phase, probed)]
    trials = TrainingSetup.trials
    monkeypatch.setattr(TrainingSetup, "trials", lambda self: trials(self)[2:])
    plain = train(spec, tmp_path / "plain")
    assert "probing" not in [phase.phase for phase in of(events.Phase, plain)]
    assert values(plain) == values(probed)
    assert_equal(newest_checkpoint(tmp_path / "plain"), newest_checkpoint(tmp_path / "probed"))


def test_the_first_attempt_alone_is_probed(train: Train) -> None:
    train(job(schedule={"max_steps": 4}))
    again = train(job(schedule={"max_steps": 4}))
    assert "probing" not in [phase.phase for phase in of(events.Phase, again)]


@pytest.mark.parametrize(("max_steps", "images"), [(4, [4]), (5, [1, 2, 4])])
def test_a_tiny_run_is_probed_by_a_single_step(
    train: Train, monkeypatch: pytest.MonkeyPatch, max_steps: int, images: list[int]
) -> None:
    taken: list[int] = []
    take = probing.step

    def counted(model: Any, raw: dict[str, Any], precision: Any) -> Any:
        taken.append(len(raw["inputs"]))
        return take(model, raw, precision)

    monkeypatch.setattr(probing, "step", counted)
    train(job(schedule={"max_steps": max_steps}))
    assert taken == images


def test_a_term_without_a_gradient_stops_the_run_by_name(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    teach = Distiller.forward_both

    def deaf(self: Any, data: Any) -> Any:
        outputs = teach(self, data)
        outputs.terms["logit"] = outputs.terms["logit"].detach()
        return outputs

    monkeypatch.setattr(Distiller, "forward_both", deaf)
    with pytest.raises(NoGradient, match="from: logit"):
        train(job())


def test_a_gradient_of_nothing_is_none() -> None:
    check_gradients(Probe(1.0, 1, {"feature": 1e-9, "task": 1.0}))
    with pytest.raises(NoGradient, match="feature, task"):
        check_gradients(Probe(1.0, 1, {"feature": 0.0, "task": 0.0}))


def test_a_term_of_weight_zero_needs_no_gradient() -> None:
    found = probe(distiller(weights=LossWeights(1.0, 0.0)), batch(), ONCE)
    assert found.gradients.keys() == {"feature", "task"}


def test_a_batch_beyond_the_free_memory_is_refused_with_one_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "resident_bytes", lambda: 1000)
    check_memory(16, one=1100, each=100, available=1600)
    with pytest.raises(BatchTooLarge, match=r"batch_size 17 does not fit.*; 16 does"):
        check_memory(17, one=1100, each=100, available=1600)
    with pytest.raises(BatchTooLarge, match="nor does 1"):
        check_memory(2, one=2700, each=0, available=1600)
    check_memory(10_000, one=1100, each=-100, available=1600)
    check_memory(10_000, one=1100, each=100, available=None)


def test_a_run_that_cannot_fit_ends_before_its_first_epoch(
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


def test_a_gpu_that_is_full_is_asked_again_with_fewer_images(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def step_of_a_small_gpu(_: Any, raw: dict[str, Any], __: Any) -> tuple[float, dict[str, float]]:
        asked.append(len(raw["inputs"]))
        if asked[-1] > 5:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return 1.0, {"task": 1.0}

    monkeypatch.setattr(probing, "step", step_of_a_small_gpu)
    raw = {name: held * 4 for name, held in batch().items()}
    with pytest.raises(BatchTooLarge, match="batch_size 8 does not fit; 5 does"):
        probing._on_gpu(detector(), raw, ONCE, torch.device("cpu"), 100)
    assert asked == [8, 4, 6, 5]
    assert probing._on_gpu(detector(), part(raw, 5), ONCE, torch.device("cpu"), 100).seconds == 1.0


def test_a_part_of_a_batch_is_its_first_images() -> None:
    raw = batch()
    raw["unlabelled"] = dict(raw)
    one = part(raw, 1)
    assert len(one["inputs"]) == len(one["data_samples"]) == len(one["unlabelled"]["inputs"]) == 1
    assert one["inputs"][0] is raw["inputs"][0]


def test_the_peak_counts_what_is_given_back() -> None:
    cpu = torch.device("cpu")
    idle = memory.peak_bytes(lambda: None, cpu)
    assert memory.peak_bytes(lambda: torch.ones(2**26), cpu) - idle > 200 * 2**20  # 256 MiB
    available = memory.available_bytes()
    assert available is not None and available > 0


def test_what_was_measured_is_told(train: Train) -> None:
    told = facts(train(job(schedule={"max_steps": 1})))
    assert told["gradients_at_start"].keys() == {"task", "feature", "logit"}
