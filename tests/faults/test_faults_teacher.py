"""F14: a corrupt or wrong teacher is refused before training, with a code that is not retried."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import frs.detectors._mmdet_init  # noqa: F401

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from frs.dataset.shapes.drawing import draw_dataset
from frs.detector_spec import DescribedDetector
from frs.detectors import builder, loading, weights
from frs.engine.trainer import report_failure, run, silence_libraries
from frs.errors import FrsError
from frs.events import Outcome
from frs.files import digest
from frs.resolved import ResolvedDetector, ResolvedSpec, resolve
from frs.spec import JobSpec
from store.jobs import lifecycle
from worker.attempt import finalizer

CLASSES = ("circle", "square", "triangle", "star")
TINY = {
    "architecture": "gfl",
    "backbone": {"depth": 18, "width": 8, "norm": "gn"},
    "neck_channels": 16,
    "stacked_convs": 1,
}
FAMILY = {"bad_weights", "class_mismatch", "teacher_refused"}
"""End reasons of an unusable teacher."""
State = dict[str, Tensor]
Content = dict[str, Any]


@pytest.fixture(scope="module", autouse=True)
def no_chatter() -> None:
    silence_libraries()


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint as mmengine writes it, of a detector of this shape."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    built = builder.build(DescribedDetector.model_validate(TINY), len(CLASSES), folder)
    content = {"meta": {"dataset_meta": {"classes": CLASSES}}, "state_dict": built.state_dict()}
    return weights.write(content, folder / "teacher.pth").path


@pytest.fixture
def built_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> nn.Module:
    """Building takes longer than loading, and does not look at the file."""
    built = builder.build(DescribedDetector.model_validate(TINY), len(CLASSES), tmp_path)
    monkeypatch.setattr(builder, "build", lambda *_: built)
    return built


def flips(data: bytes, chance: random.Random) -> Iterator[bytes]:
    for _ in range(80):
        mutant = bytearray(data)
        for _ in range(chance.choice([1, 1, 3, 100])):
            mutant[chance.randrange(len(mutant))] ^= 1 << chance.randrange(8)
        yield bytes(mutant)


def cuts(data: bytes, chance: random.Random) -> Iterator[bytes]:
    for share in range(20):
        yield data[: len(data) * share // 20]
    for _ in range(10):
        start = chance.randrange(len(data))
        yield data[:start] + data[start + chance.randrange(1, 4096) :]
        yield data[:start] + bytes(min(4096, len(data) - start)) + data[start + 4096 :]


def renamed(state: State, key: str, _: random.Random) -> State:
    return {("x." + name if name == key else name): tensor for name, tensor in state.items()}


def missing(state: State, key: str, _: random.Random) -> State:
    return {name: tensor for name, tensor in state.items() if name != key}


def added(state: State, key: str, _: random.Random) -> State:
    return state | {key + ".more": torch.zeros(1)}


def reshaped(state: State, key: str, chance: random.Random) -> State:
    tensor = state[key]
    return state | {key: chance.choice([tensor.flatten()[:-1], tensor[None], torch.cat([tensor, tensor])])}


def retyped(state: State, key: str, chance: random.Random) -> State:
    kind = chance.choice([torch.int64, torch.bool, torch.complex64, torch.float64, torch.uint8])
    return state | {key: state[key].to(kind)}


def not_finite(state: State, key: str, chance: random.Random) -> State:
    tensor = state[key].clone()
    tensor.view(-1)[chance.randrange(tensor.numel())] = chance.choice([float("nan"), float("inf"), float("-inf")])
    return state | {key: tensor}


def no_tensor(state: State, key: str, chance: random.Random) -> State:
    return state | {key: chance.choice([None, 1.0, "x", [state[key]], {"a": state[key]}])}


def elsewhere(state: State, key: str, chance: random.Random) -> State:
    return state | {key: chance.choice([state[key].to("meta"), state[key].to_sparse()])}


ALTERED = (renamed, missing, added, reshaped, retyped, not_finite, no_tensor, elsewhere)


def classes(content: Content, names: Any) -> Content:
    return content | {"meta": {"dataset_meta": {"classes": names}}}


def mutants(teacher: Path, folder: Path) -> Iterator[tuple[str, Path]]:
    chance, data, content = random.Random(14), teacher.read_bytes(), weights.read(teacher)
    state, number = content["state_dict"], 0
    keys = [key for key, tensor in state.items() if tensor.numel() > 1]
    raw: list[tuple[str, bytes]] = [("flip", mutant) for mutant in flips(data, chance)]
    raw += [("cut", mutant) for mutant in cuts(data, chance)]
    for name, mutant in raw:
        path = folder / f"{number}.pth"
        path.write_bytes(mutant)
        yield name, path
        number += 1
    made: list[tuple[str, Any]] = [
        (alter.__name__, content | {"state_dict": alter(state, chance.choice(keys), chance)})
        for alter in ALTERED
        for _ in range(11)
    ]
    for names in [CLASSES[::-1], CLASSES[:3], (*CLASSES, "moon"), ("a",) * 4, ("Circle", *CLASSES[1:])]:
        made.append(("classes", classes(content, names)))
    made += [("empty", {}), ("empty", {"state_dict": {}}), ("list", [state]), ("tensor", torch.zeros(3))]
    for name, mutant in made:
        torch.save(mutant, folder / f"{number}.pth")
        yield name, folder / f"{number}.pth"
        number += 1


def test_every_mutant_is_refused_by_a_code_or_is_the_same_weights(teacher, built_once, tmp_path):
    whole, seen = weights.read(teacher)["state_dict"], {"refused": 0, "same": 0}
    description = DescribedDetector.model_validate(TINY)
    for name, path in mutants(teacher, tmp_path):
        try:
            loaded = loading.load_detector(ResolvedDetector(description=description, weights=path), CLASSES, tmp_path)
        except FrsError as error:
            assert error.end_reason in FAMILY, (name, path)
            _ends_at_once(error)
            seen["refused"] += 1
        else:
            different = [key for key, tensor in loaded.state_dict().items() if not torch.equal(tensor, whole[key])]
            assert not different, (name, path, different)
            seen["same"] += 1
    assert sum(seen.values()) >= 200 and seen["refused"] > 160, seen


def _ends_at_once(error: FrsError) -> None:
    emitted: list[Outcome] = []
    report_failure(emitted.append, error)
    ending = finalizer.finalizer_for(emitted[0], 1, "")
    assert ending.func is lifecycle.finish, "it is not tried again"
    assert (ending.keywords["end_reason"], ending.keywords["error"].code) == (error.end_reason, error.code)


def test_a_registered_teacher_with_one_changed_bit_is_refused(teacher, built_once, tmp_path):
    """Also as safetensors, which hold no sum of their own."""
    chance = random.Random(5)
    plain = tmp_path / "plain"
    plain.write_bytes(safetensors.torch.save(weights.read(teacher)["state_dict"]))
    for file in (teacher, plain):
        sha256, data = digest(file), file.read_bytes()
        for number in range(20):
            mutant = bytearray(data)
            mutant[chance.randrange(len(mutant))] ^= 1 << chance.randrange(8)
            path = tmp_path / f"{number}.bin"
            path.write_bytes(mutant)
            detector = ResolvedDetector(description=DescribedDetector.model_validate(TINY), weights=path, sha256=sha256)
            with pytest.raises(FrsError, match="sha256"):
                loading.load_detector(detector, CLASSES, tmp_path)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    draw_dataset(folder / "tiny", train=4, val=2, size=64)
    return folder


def distilling(data: Path, models: Path, name: str) -> ResolvedSpec:
    spec = {
        "dataset": "tiny",
        "teacher": TINY | {"init": {"weights": name}},
        "student": TINY,
        "schedule": {"max_steps": 1, "batch_size": 2, "image_size": [64, 64]},
    }
    return resolve(JobSpec.model_validate(spec), data, models)


@pytest.mark.parametrize("alter", [renamed, elsewhere, not_finite, no_tensor])
def test_the_trainer_ends_before_its_first_step(teacher, data, tmp_path, alter: Callable[..., State]):
    content = weights.read(teacher)
    key = "bbox_head.gfl_cls.weight"
    altered = content | {"state_dict": alter(content["state_dict"], key, random.Random(0))}
    torch.save(altered, tmp_path / "bad.pth")
    emitted: list[Any] = []
    assert run(distilling(data, tmp_path, "bad.pth"), tmp_path / "run", emitted.append) == 1
    outcome = emitted[-1]
    assert (outcome.status, outcome.end_reason) == ("failed", "bad_weights") and outcome.error.hint
    assert not any(event.type in ("metrics", "checkpoint") for event in emitted)
