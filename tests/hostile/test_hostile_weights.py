"""S1: code, lies and bombs in weights files, through every path that reads one. The canary never appears."""

import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import frs.detectors._mmdet_init  # noqa: F401

import numpy as np
import pytest
import safetensors.torch
import torch
from pickle_bombs import archive, bombs, called, calls, carriers, tensors_files, text, whole
from torch import nn

from frs.detectors import builder, loading, weights
from frs.distillation.teacher_cache import _read as read_cached
from frs.engine.checkpoints import Checkpoints
from frs.errors import BadTeacher, CheckpointUnusable, DetectionsUnusable, FrsError
from frs.evaluation import detections
from frs.resolved import ResolvedDetector
from frs.spec import DescribedDetector

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CANARY = "canary"


@pytest.fixture(scope="module")
def canary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("canary") / CANARY


@pytest.fixture(scope="module")
def files(canary: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Every hostile file, under a name that says nothing of its format."""
    content = {}
    in_state = {
        name: b"}" + text("state_dict") + b"}" + text("w") + code + b"ss" for name, code in calls(canary).items()
    }
    for name, code in {**calls(canary), **bombs()}.items():
        content[f"{name}, alone"] = whole(code)
    for name, code in {**in_state, **bombs()}.items():
        content[f"{name}, zip"] = archive(whole(code, 4))
    for protocol in range(6):
        for name, data in carriers(whole(calls(canary)["os.system"], protocol)).items():
            content[f"protocol {protocol}, {name}"] = data
    content |= {f"safetensors, {name}": data for name, data in tensors_files().items()}
    folder = tmp_path_factory.mktemp("files")
    return [_file(folder / f"{number}.weights", data) for number, data in enumerate(content.values())]


def _file(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_there_are_hundreds_of_them_and_a_reader_that_trusts_would_be_had(files, canary, tmp_path):
    """Else the tests below would prove nothing."""
    assert len(files) > 400
    trusting = "import io, sys, pickle\ntry:\n    pickle.load(open(sys.argv[1], 'rb'))\nexcept Exception:\n    pass\n"
    had = 0
    for name in ("os.system", "builtins.eval", "shelve.open", "INST", "OBJ", "memo", "BUILD", "pickle.loads"):
        path = _file(tmp_path / "trusted", whole(calls(canary)[name], 4))
        subprocess.run([sys.executable, "-c", trusting, path], check=True)
        had += canary.exists() or bool(list(canary.parent.glob(f"{CANARY}*")))
        for left in canary.parent.glob(f"{CANARY}*"):
            left.unlink()
    assert had == 8


Reader = Callable[[Path], Any]


def the_weights_of(path: Path) -> Any:
    return weights.load(nn.Linear(4, 1), weights.read(path), path.name)


def a_backbone(path: Path) -> Any:
    return weights.load_backbone(nn.Linear(4, 1), path)


def a_teacher(path: Path) -> Any:
    description = DescribedDetector.model_validate({"architecture": "gfl"})
    return loading.load_detector(ResolvedDetector(description=description, weights=path), ("a",), path.parent)


def a_student(path: Path) -> Any:
    description = DescribedDetector.model_validate({"architecture": "gfl"})
    return loading.load_student(ResolvedDetector(description=description, weights=path), ("a",), path.parent)


@pytest.mark.parametrize("read", [the_weights_of, a_backbone, a_teacher, a_student])
def test_no_weights_file_runs_code_and_each_is_refused_by_a_code(files, canary, monkeypatch, read):
    monkeypatch.setattr(builder, "build", lambda *_: nn.Linear(4, 1))
    monkeypatch.setattr(builder, "class_layers", lambda *_: ["bias"])
    for path in files:
        with pytest.raises(BadTeacher) as refused:
            read(path)
        assert refused.value.end_reason == "bad_teacher" and refused.value.message
        assert not any(canary.parent.iterdir()), path


def test_a_hostile_checkpoint_is_passed_over_or_refused(files, canary, tmp_path):
    for path in files:
        copy = tmp_path / f"step_00000001-{weights.digest(path)[:8]}.pth"
        copy.write_bytes(path.read_bytes())
        try:
            assert Checkpoints(tmp_path, "identity").newest() is None, path
        except CheckpointUnusable as error:
            assert "another spec" in error.message
        copy.unlink()
        assert not any(canary.parent.iterdir()), path


def test_hostile_detections_are_refused(files, canary, tmp_path):
    for path in [*files, *_arrays(canary, tmp_path)]:
        with pytest.raises(DetectionsUnusable):
            detections.read(path)
        assert not any(canary.parent.iterdir()), path


def _arrays(canary: Path, folder: Path) -> list[Path]:
    """Files as `np.load` takes them, with objects, sizes and forms it should not believe."""
    pickled = whole(calls(canary)["os.system"])

    def npy(header: str) -> bytes:
        return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + pickled

    members = {
        "objects": npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n"),
        "pickle": pickled,
        "exabytes": npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1152921504606846976,), }\n"),
        "negative": npy("{'descr': '<f8', 'fortran_order': False, 'shape': (-1,), }\n"),
        "code": npy("__import__('os').system('touch " + str(canary) + "')\n"),
        "deep": npy("(" * 5000 + "\n"),
        "fields": npy("{'descr': [('a', '|O')], 'fortran_order': False, 'shape': (1,), }\n"),
        "no type": npy("{'descr': 'zz', 'fortran_order': False, 'shape': (1,), }\n"),
        "version": b"\x93NUMPY\x09\x00" + pickled,
        "cut": b"\x93NUMPY",
    }
    found = [_file(folder / f"alone-{name}.npz", data) for name, data in members.items()]
    names = ("image", "corners", "score", "label", "images", "classes", "annotations_sha256")
    for name, data in members.items():
        more = {f"{column}.npy": data for column in names}
        found.append(_file(folder / f"in-{name}.npz", archive(pickled, more=more)))
    return found


def test_a_hostile_file_in_the_teacher_cache_is_as_none(files, canary):
    for path in files:
        assert read_cached(path, torch.device("cpu")) is None, path
        assert not any(canary.parent.iterdir()), path


@pytest.fixture(scope="module")
def imported(files) -> list[dict[str, Any]]:
    """What becomes of every second one where it is imported."""
    told = "\n".join(map(str, files[::2]))
    many = subprocess.run(
        [sys.executable, HERE / "import_many.py"], input=told, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT
    )
    return [json.loads(line) for line in many.stdout.splitlines()]


def test_an_import_refuses_each_by_a_code_and_leaves_nothing(files, imported, canary):
    assert len(imported) == len(files[::2]) > 200
    for told in imported:
        assert told["status"] == 0 and told["answer"], told
        assert told["answer"]["code"] == 1
        said = told["answer"]["said"]
        assert said["code"] in ("weights_unreadable", "weights_refused") and said["message"]
        assert "/" not in said["message"], "no path of ours"
    assert not any(canary.parent.iterdir())
    assert not any((files[0].parent / "out").iterdir())


def command(*arguments: object) -> tuple[int, Any]:
    line = [sys.executable, "-m", "frs", "import-weights", *map(str, arguments)]
    ended = subprocess.run(line, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    return ended.returncode, json.loads(ended.stdout)


def test_the_command_imports_a_checkpoint_with_its_classes_whatever_it_is_called(tmp_path):
    state = {"w": torch.ones(2, 3), "tied": torch.zeros(4), "half": torch.ones(2).half()}
    state["again"] = state["tied"]
    noise = {"lr": np.float64(0.1), "log": np.arange(4.0), "kinds": np.array(["a", "b"]), "any": np.array([None])}
    written = weights.write(
        {"state_dict": state, "meta": {"dataset_meta": {"classes": ("a", "b")}}}, tmp_path / "x.txt"
    )
    code, said = command(written.path, tmp_path / "out" / "y.safetensors", "--sha256", written.sha256)
    target = tmp_path / "out" / "y.safetensors"
    assert code == 0 and said["sha256"] == weights.digest(target) and said["bytes"] == target.stat().st_size
    assert (said["tensors"], said["parameters"], said["classes"]) == (4, 16, ["a", "b"])
    content = weights.read(target)
    assert weights.classes_of(content) == ("a", "b")
    assert all(torch.equal(tensor, state[key]) for key, tensor in content["state_dict"].items())
    torch.save({"state_dict": state, "meta": noise}, tmp_path / "mmengine")
    assert command(tmp_path / "mmengine", target)[1]["classes"] is None
    assert [path.name for path in target.parent.iterdir()] == [target.name]


@pytest.mark.parametrize(
    ("state", "code"),
    [
        ({"w": torch.tensor([1.0, float("nan"), float("inf")])}, "weights_refused"),
        ({"w": torch.zeros(1).expand(1 << 40)}, "weights_refused"),
        ({"w": torch.eye(3).to_sparse()}, "weights_refused"),
        ({"w": torch.zeros(3, dtype=torch.complex64)}, "weights_refused"),
        ({"w": torch.zeros(3, device="meta")}, "weights_refused"),
        ({"a\nb": torch.zeros(3)}, "weights_refused"),
        ({"k" * 1000: torch.zeros(3)}, "weights_refused"),
        ({f"{number}": torch.zeros(0) for number in range(20_001)}, "weights_refused"),
        ({"w": 3}, "weights_unreadable"),
        ({}, "weights_unreadable"),
    ],
)
def test_what_is_no_plain_finite_tensor_is_not_imported(tmp_path, state, code):
    torch.save({"state_dict": state}, tmp_path / "in")
    assert _in_this_process(tmp_path / "in")["said"]["code"] == code


@pytest.mark.parametrize("classes", [["a\x1b[2J"], ["x" * 301], [""], ["a"] * 20_001])
def test_class_names_are_names(tmp_path, classes):
    torch.save({"state_dict": {"w": torch.zeros(1)}, "meta": {"classes": classes}}, tmp_path / "in")
    assert _in_this_process(tmp_path / "in")["said"]["code"] == "weights_refused"


def test_what_grows_when_it_is_read_is_refused_before_it_is(tmp_path):
    with zipfile.ZipFile(tmp_path / "in", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data.pkl", bytes(1 << 28))
    with pytest.raises(FrsError, match="in is no weights file"):
        weights.read(tmp_path / "in")


def _in_this_process(source: Path) -> Any:
    many = subprocess.run(
        [sys.executable, HERE / "import_many.py"], input=str(source), stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    return json.loads(many.stdout)["answer"]


def test_metadata_of_strangers_are_not_taken_for_class_names(tmp_path):
    for number, said in enumerate(["x", "[1, 2]", "{}", "[" * 10_000, "null", '"a"']):
        path = tmp_path / str(number)
        path.write_bytes(safetensors.torch.save({"w": torch.ones(1)}, {"classes": said}))
        found = weights.classes_of(weights.read(path))
        assert found in (None, ("a",))


def test_an_unpickler_that_makes_numpy_arrays_would_take_memory_on_trust(tmp_path):
    """So none are made: in their place stands something that holds nothing."""
    flags = (
        called("numpy", "dtype", text("f8"), b"\x89", b"\x88")
        + b"(K\x04"
        + text("<")
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x3ftb"
    )
    path = _file(tmp_path / "flags", archive(whole(b"}" + text("x") + flags + b"s")))
    read = weights.read(path)
    assert not isinstance(read["x"], np.dtype)
