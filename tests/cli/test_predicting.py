"""`frs predict`: objects of each detector as a table, and drawn side by side."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from cli.main import app
from frs_client import Client

RED, BLUE = ([{"box": [2, 3, 20, 25], "score": score, "label": name}] for name, score in (("cat", 0.9), ("dog", 0.5)))
ANSWER = {
    "width": 40,
    "height": 30,
    "results": [
        {"role": "student", "job_id": "job_1", "milliseconds": 12.3, "objects": RED},
        {"role": "teacher", "job_id": "job_2", "milliseconds": 45.6, "objects": BLUE},
    ],
}


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Any]:
    """The requests that are sent; an image `image.jpg` exists in `tmp_path`."""
    requests: list[Any] = []

    def upload(self: Client, path: str, file: Path, media_type: str, **query: Any) -> Any:
        requests.append((path, media_type, query))
        return ANSWER

    monkeypatch.setattr(Client, "upload", upload)
    Image.new("RGB", (40, 30), "white").save(tmp_path / "image.jpg")
    return requests


def test_the_objects_of_student_and_teacher_are_shown_and_drawn(frs: Any, sent: list[Any], tmp_path: Path) -> None:
    output = frs(
        "predict", "job_1", tmp_path / "image.jpg", "--compare", "teacher", "--save", tmp_path / "both.png"
    ).output
    assert sent == [("/jobs/job_1/predict", "image/jpeg", {"compare": ["teacher"], "threshold": 0.3, "format": "onnx"})]
    assert "student: 1 objects in 12 ms" in output
    assert "dog" in output
    drawn = np.asarray(Image.open(tmp_path / "both.png"))
    assert drawn.shape == (46, 80, 3)
    left, right = drawn[16 + 25, 10], drawn[16 + 25, 50]
    assert (left != 255).any()
    assert (right != 255).any()
    assert (left != right).any()  # one class, one colour


def test_a_detector_is_named_instead_of_a_job(frs: Any, sent: list[Any], tmp_path: Path) -> None:
    frs("predict", "big", tmp_path / "image.jpg", "--json")
    assert sent[0][0] == "/detectors/big/predict"


def test_a_detector_is_not_compared(frs: Any, sent: list[Any], tmp_path: Path) -> None:
    result = frs("predict", "big", tmp_path / "image.jpg", "--compare", "teacher", code=1)
    assert "--compare needs a job" in result.stderr
    assert sent == []


def test_a_file_without_the_suffix_of_an_image_is_not_sent(frs: Any, sent: list[Any], tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    assert "Supported: .jpg" in frs("predict", "job_1", tmp_path / "notes.txt", code=1).output
    assert sent == []


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("boxes", "boxes has no suffix of a picture, such as .png or .jpg"),
        ("boxes.txt", "boxes.txt has no suffix of a picture"),
        ("nowhere/boxes.png", "there is no folder"),
        ("image.jpg", "would overwrite the image"),
    ],
)
def test_a_picture_that_cannot_be_saved_is_refused_before_the_image_is_sent(
    frs: Any, sent: list[Any], tmp_path: Path, target: str, message: str
) -> None:
    assert message in frs("predict", "job_1", tmp_path / "image.jpg", "--save", tmp_path / target, code=1).stderr
    assert sent == []


def test_objects_are_shown_also_if_their_picture_cannot_be_written(frs: Any, sent: list[Any], tmp_path: Path) -> None:
    (tmp_path / "boxes.png").mkdir()
    result = frs("predict", "job_1", tmp_path / "image.jpg", "--save", tmp_path / "boxes.png", code=1)
    assert "student: 1 objects" in result.stdout
    assert "boxes.png cannot be written: Is a directory." in result.stderr


def test_class_names_that_the_terminal_lacks_are_replaced(
    data: Path, sent: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = [{"box": [2, 3, 20, 25], "score": 0.9, "label": "猫"}]
    answer = ANSWER | {"results": [{"role": "student", "job_id": "job_1", "milliseconds": 1.0, "objects": objects}]}
    monkeypatch.setattr(Client, "upload", lambda *_, **__: answer)
    monkeypatch.setenv("FRS_DATA", str(data))
    result = CliRunner(charset="cp1252").invoke(app, ["predict", "job_1", str(tmp_path / "image.jpg")])
    assert (result.exit_code, result.exception) == (0, None)
    assert "?" in result.stdout
