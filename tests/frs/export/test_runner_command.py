"""The command of `frs_runner.py`: where pictures go, and which arguments it refuses before it loads the model."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from frs.export import frs_runner

OUTPUTS: dict[str, np.ndarray[Any, Any]] = {
    "boxes": np.array([[1, 2, 30, 40]], np.float32),
    "scores": np.array([0.9], np.float32),
    "labels": np.array([0], np.int64),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file that finds the same object on every image."""
    values = [numpy_helper.from_array(value, f"constant_{name}") for name, value in OUTPUTS.items()]
    nodes = [helper.make_node("Identity", [f"constant_{name}"], [name]) for name in OUTPUTS]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["height", "width", 3])
    types = {"labels": TensorProto.INT64}
    outputs = [helper.make_tensor_value_info(name, types.get(name, TensorProto.FLOAT), None) for name in OUTPUTS]
    graph = helper.make_graph(nodes, "constant", [image], outputs, values)
    network = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(network, {"classes": json.dumps(["猫"])})
    path = tmp_path_factory.mktemp("model") / "student.onnx"
    onnx.save(network, path)
    return path


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    """Return two images of one name, in two folders."""
    paths = [tmp_path / "day" / "1.png", tmp_path / "night" / "1.png"]
    for path, colour in zip(paths, ("white", "black"), strict=True):
        path.parent.mkdir()
        Image.new("RGB", (50, 60), colour).save(path)
    return paths


def run(model: Path, folder: Path, *arguments: object, stdin: str = "", **environment: str) -> tuple[int, str, str]:
    """Return the exit status, standard output and standard error of the runner, started in the folder."""
    completed = subprocess.run(
        [sys.executable, frs_runner.__file__, model, *map(str, arguments)],
        input=stdin.encode(),
        cwd=folder,
        capture_output=True,
        check=False,
        env=os.environ | environment,
    )
    return completed.returncode, completed.stdout.decode(errors="replace"), completed.stderr.decode()


@pytest.mark.parametrize("by_stdin", [False, True])
def test_images_of_one_name_have_a_picture_each(
    model: Path, tmp_path: Path, images: list[Path], by_stdin: bool
) -> None:
    paths = [str(path) for path in images]
    arguments, stdin = ([], "\n".join(paths)) if by_stdin else (paths, "")
    status, _, errors = run(model, tmp_path, *arguments, "--save", "out", stdin=stdin)
    assert (status, errors) == (0, "")
    corners = {path.name: Image.open(path).convert("RGB").getpixel((45, 55)) for path in (tmp_path / "out").iterdir()}
    assert corners == {"1.png": (255, 255, 255), "1-2.png": (0, 0, 0)}


def test_a_picture_of_a_format_that_is_not_written_is_a_png(model: Path, tmp_path: Path) -> None:
    Image.new("RGB", (50, 60)).save(tmp_path / "a.dat", "PNG")
    assert run(model, tmp_path, "a.dat", "--save", "out")[0] == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.dat.png"]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("out.v2", "out.v2 has no suffix of a picture"),
        ("out.xyz", "a folder whose name has a dot must exist"),
        ("nowhere/out.png", "there is no folder nowhere"),
        ("day/1.png", "would overwrite"),
        ("night", "would overwrite"),
    ],
)
def test_a_target_that_cannot_be_written_is_refused_before_the_model_is_loaded(
    tmp_path: Path, images: list[Path], target: str, message: str
) -> None:
    chosen = images if target == "night" else images[:1]
    status, _, errors = run(tmp_path / "absent.onnx", tmp_path, *chosen, "--save", target)
    assert status == 2
    assert message in errors


def test_a_picture_that_cannot_be_written_does_not_end_the_command(
    model: Path, tmp_path: Path, images: list[Path]
) -> None:
    (tmp_path / "out" / "1.png").mkdir(parents=True)
    status, output, errors = run(model, tmp_path, *images, "--save", "out")
    assert status == 1
    assert output.count("objects in") == 2
    assert "Traceback" not in errors and "1.png" in errors
    assert (tmp_path / "out" / "1-2.png").is_file()


@pytest.mark.parametrize("position", [0, 1])
def test_images_named_on_standard_input_are_not_overwritten(
    model: Path, tmp_path: Path, images: list[Path], position: int
) -> None:
    before = [path.read_bytes() for path in images]
    stdin = "\n".join(map(str, images))
    status, _, errors = run(model, tmp_path, "--save", images[position].parent, stdin=stdin)
    assert (status, [path.read_bytes() for path in images]) == (2, before)
    assert "would overwrite" in errors


def test_an_image_named_by_a_link_is_not_overwritten_by_the_picture_of_another(
    model: Path, tmp_path: Path, images: list[Path]
) -> None:
    (tmp_path / "link.png").symlink_to(images[1])
    before = images[1].read_bytes()
    status, _, errors = run(model, tmp_path, images[0], "link.png", "--save", images[1].parent)
    assert (status, images[1].read_bytes()) == (2, before)
    assert "would overwrite" in errors


def test_one_image_named_on_standard_input_can_be_saved_to_a_file(
    model: Path, tmp_path: Path, images: list[Path]
) -> None:
    assert run(model, tmp_path, "--save", "out.png", stdin=f"{images[0]}\n")[0] == 0
    assert (tmp_path / "out.png").is_file()


def test_without_images_on_standard_input_nothing_is_done(model: Path, tmp_path: Path) -> None:
    assert run(model, tmp_path, "--save", "out") == (0, "", "")


def test_metadata_of_a_job_that_are_named_like_settings_are_not_settings(
    model: Path, tmp_path: Path, images: list[Path]
) -> None:
    network = onnx.load(model)
    values = {"classes": ["cat"], "format": "onnx", "score_threshold": "0.95", "clip": "yes"}
    helper.set_model_props(network, {key: json.dumps(value) for key, value in values.items()})
    onnx.save(network, tmp_path / "student.onnx")
    status, output, errors = run(tmp_path / "student.onnx", tmp_path, images[0])
    assert (status, errors) == (0, "")
    assert "1 objects" in output


def test_class_names_that_the_terminal_lacks_are_replaced(model: Path, tmp_path: Path, images: list[Path]) -> None:
    status, output, errors = run(model, tmp_path, images[0], PYTHONIOENCODING="cp1252")
    assert (status, errors) == (0, "")
    assert "?                    0.900" in output
