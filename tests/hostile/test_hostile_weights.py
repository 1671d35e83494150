"""Malicious weights files (code, false sizes, bombs) in every reader: no code runs, so no canary file appears."""

import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import frs.detectors._mmdet_init  # noqa: F401

import numpy as np
import pytest
import safetensors.torch
import torch
from pickle_bombs import archive, bombs, called, calls, carriers, tensors_files, text, whole
from torch import nn

from frs.detector_spec import DescribedDetector
from frs.detectors import builder, imagenet, loading, weights
from frs.distillation import teacher_cache
from frs.engine.checkpoints import Checkpoints
from frs.errors import BadWeights, CheckpointUnusable, DetectionsUnusable, FrsError
from frs.evaluation import detections
from frs.resolved import ResolvedDetector

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CANARY = "canary"


@pytest.fixture(scope="module")
def canary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("canary") / CANARY


@pytest.fixture(scope="module")
def files(canary: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """All hostile files, with names that do not reveal their format."""
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


def test_there_are_hundreds_of_hostile_files_and_plain_unpickling_runs_their_code(files, canary, tmp_path):
    """Otherwise the tests below would be meaningless."""
    assert len(files) > 400
    unpickle = "import io, sys, pickle\ntry:\n    pickle.load(open(sys.argv[1], 'rb'))\nexcept Exception:\n    pass\n"
    executed = 0
    for name in ("os.system", "builtins.eval", "shelve.open", "INST", "OBJ", "memo", "BUILD", "pickle.loads"):
        path = _file(tmp_path / "trusted", whole(calls(canary)[name], 4))
        subprocess.run([sys.executable, "-c", unpickle, path], check=True)
        executed += canary.exists() or bool(list(canary.parent.glob(f"{CANARY}*")))
        for file in canary.parent.glob(f"{CANARY}*"):
            file.unlink()
    assert executed == 8


Reader = Callable[[Path], Any]


def load_weights(path: Path) -> Any:
    return weights.load(nn.Linear(4, 1), weights.read(path), path.name)


def load_backbone(path: Path) -> Any:
    return imagenet.load_file(nn.Linear(4, 1), path)


def load_teacher(path: Path) -> Any:
    description = DescribedDetector.model_validate({"architecture": "gfl"})
    resolved = ResolvedDetector(description=description, weights=path)
    return loading.load_teacher(resolved, ("a",), path.parent, distils_logits=False)


def load_student(path: Path) -> Any:
    description = DescribedDetector.model_validate({"architecture": "gfl"})
    return loading.load_student(ResolvedDetector(description=description, weights=path), ("a",), path.parent)


@pytest.mark.parametrize("read", [load_weights, load_backbone, load_teacher, load_student])
def test_no_weights_file_runs_code_and_each_is_refused_with_a_code(files, canary, monkeypatch, read):
    monkeypatch.setattr(builder, "build", lambda *_: nn.Linear(4, 1))
    monkeypatch.setattr(builder, "class_layers", lambda *_: {"bias": builder.ClassLayer(per_class=1, others=0)})
    for path in files:
        with pytest.raises(BadWeights) as raised:
            read(path)
        assert raised.value.end_reason == "bad_weights" and raised.value.message
        assert not any(canary.parent.iterdir()), path


def test_a_hostile_checkpoint_is_skipped_or_refused(files, canary, tmp_path):
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
    """Write files in NumPy's formats with objects and false sizes and shapes."""
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
    paths = [_file(folder / f"alone-{name}.npz", data) for name, data in members.items()]
    names = ("image", "corners", "score", "label", "images", "classes", "annotations_sha256")
    for name, data in members.items():
        arrays = {f"{column}.npy": data for column in names}
        paths.append(_file(folder / f"in-{name}.npz", archive(pickled, extra=arrays)))
    return paths


def test_a_hostile_file_in_the_teacher_cache_is_a_cache_miss(files, canary, tmp_path, monkeypatch):
    monkeypatch.setattr(teacher_cache, "RESERVED_DISK_BYTES", 0)
    outputs = ({8: torch.ones(2, 1, 4, 4)}, {8: torch.zeros(2, 1, 4, 4)})
    cache = teacher_cache.TeacherCache(Mock(strides=[8], observe=Mock(return_value=outputs)), tmp_path)
    metas = [{"img_path": name, "img_shape": (32, 32)} for name in ("a.jpg", "b.jpg")]
    batch = [torch.zeros(3, 32, 32)] * 2, [SimpleNamespace(metainfo=meta) for meta in metas]
    cache.observe(*batch)
    for number, path in enumerate(files, 1):
        for cached in tmp_path.iterdir():
            shutil.copy(path, cached)
        assert cache.observe(*batch) is outputs and cache.teacher.observe.call_count == number + 1, path
        assert not any(canary.parent.iterdir()), path


@pytest.fixture(scope="module")
def import_file() -> Iterator[Callable[[Path], dict[str, Any]]]:
    """A function that imports a file in a forked process of its own and returns its result."""
    command = [sys.executable, HERE / "import_many.py"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdin and process.stdout
        requests, results = process.stdin, process.stdout

        def import_file(source: Path) -> dict[str, Any]:
            print(source, file=requests, flush=True)
            return json.loads(results.readline())

        yield import_file


def test_an_import_refuses_each_file_with_a_code_and_leaves_no_files(files, import_file, canary):
    """Of every second hostile file."""
    assert len(files[::2]) > 200
    for result in map(import_file, files[::2]):
        assert result["status"] == 0 and result["answer"], result
        assert result["answer"]["code"] == 1
        error = result["answer"]["output"]
        assert error["code"] in ("weights_unreadable", "weights_refused") and error["message"]
        assert "/" not in error["message"], "the message contains a path"
    assert not any(canary.parent.iterdir())
    assert not any((files[0].parent / "out").iterdir())


def command(*arguments: object) -> tuple[int, Any]:
    line = [sys.executable, "-m", "frs", "import-weights", *map(str, arguments)]
    completed = subprocess.run(line, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    return completed.returncode, json.loads(completed.stdout)


def test_the_command_imports_a_checkpoint_with_its_classes_and_size_under_any_file_name(tmp_path):
    state = {"w": torch.ones(2, 3), "tied": torch.zeros(4), "half": torch.ones(2).half()}
    state["again"] = state["tied"]
    noise = {"lr": np.float64(0.1), "log": np.arange(4.0), "kinds": np.array(["a", "b"]), "any": np.array([None])}
    meta = {"dataset_meta": {"classes": ("a", "b")}, "image_size": (640, 480)}
    written = weights.write({"state_dict": state, "meta": meta}, tmp_path / "x.txt")
    code, output = command(written.path, tmp_path / "out" / "y.safetensors", "--sha256", written.sha256)
    target = tmp_path / "out" / "y.safetensors"
    assert code == 0 and output["sha256"] == weights.digest(target) and output["bytes"] == target.stat().st_size
    assert (output["tensors"], output["parameters"], output["classes"]) == (4, 16, ["a", "b"])
    content = weights.read(target)
    assert (weights.classes_of(content), weights.image_size_of(content)) == (("a", "b"), (640, 480))
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
def test_only_plain_finite_tensors_are_imported(tmp_path, import_file, state, code):
    torch.save({"state_dict": state}, tmp_path / "in")
    assert import_file(tmp_path / "in")["answer"]["output"]["code"] == code


@pytest.mark.parametrize("classes", [["a\x1b[2J"], ["x" * 301], [""], ["a"] * 20_001])
def test_invalid_class_names_are_refused(tmp_path, import_file, classes):
    torch.save({"state_dict": {"w": torch.zeros(1)}, "meta": {"classes": classes}}, tmp_path / "in")
    assert import_file(tmp_path / "in")["answer"]["output"]["code"] == "weights_refused"


def test_a_compressed_archive_is_refused_before_it_is_read(tmp_path):
    with zipfile.ZipFile(tmp_path / "in", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data.pkl", bytes(1 << 28))
    with pytest.raises(FrsError, match="in is not a weights file"):
        weights.read(tmp_path / "in")


def test_unrelated_metadata_are_not_used_as_class_names(tmp_path):
    for number, classes in enumerate(["x", "[1, 2]", "{}", "[" * 10_000, "null", '"a"']):
        path = tmp_path / str(number)
        path.write_bytes(safetensors.torch.save({"w": torch.ones(1)}, {"classes": classes}))
        names = weights.classes_of(weights.read(path))
        assert names in (None, ("a",))


def test_numpy_arrays_in_a_pickle_are_not_created(tmp_path):
    """Their sizes are untrusted; a placeholder without content replaces them."""
    flags = (
        called("numpy", "dtype", text("f8"), b"\x89", b"\x88")
        + b"(K\x04"
        + text("<")
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x3ftb"
    )
    path = _file(tmp_path / "flags", archive(whole(b"}" + text("x") + flags + b"s")))
    content = weights.read(path)
    assert not isinstance(content["x"], np.dtype)
