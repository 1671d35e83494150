"""`jobs.pull`: all files beside the weights belong to the pulled student."""

from pathlib import Path
from typing import Any

import pytest

from frs_client.sync.pulling import Label, pull

STUDENTS = [
    {"id": "ckpt_1", "sha256": "a" * 64, "labels": ["best"]},
    {"id": "ckpt_2", "sha256": "b" * 64, "labels": ["last"]},
]
ARTIFACTS = ["student-config.py", "student.safetensors", "curves.png", "richness.png", "detections.json"]


class RecordedClient:
    """Answers like a service whose job has a best and a last student."""

    def __init__(self, name: str = "a name") -> None:
        self.name = name

    def get(self, path: str, **query: Any) -> Any:
        return query if path.endswith("/report") else {"name": self.name}

    def each(self, path: str) -> Any:
        names = [{"name": name, "sha256": "c" * 64} for name in ARTIFACTS]
        return iter(STUDENTS if path.endswith("/checkpoints") else names)

    def download(self, path: str, target: Path, sha256: str) -> None:
        target.write_text(path)


@pytest.mark.parametrize(
    ("label", "suffixes"),
    [
        ("best", [".pth", ".py", "-report.json"]),
        ("last", [".pth", ".py", ".safetensors", "-curves.png", "-report.json", "-richness.png"]),
    ],
)
def test_each_student_comes_with_its_config_and_report(label: Label, suffixes: list[str], tmp_path: Path) -> None:
    client: Any = RecordedClient()
    files = pull(client, "job_1", tmp_path, label)
    stem = "a_name-aaaaaaaa" if label == "best" else "a_name-bbbbbbbb"
    assert {file.name for file in files} == {path.name for path in tmp_path.iterdir()} == {stem + s for s in suffixes}
    assert label in (tmp_path / f"{stem}-report.json").read_text()


@pytest.mark.parametrize("name", ["Straße 12", "猫と犬", "می\u200cخواهم", "👩\u200d🔬", "猫" * 66])
def test_files_have_the_name_of_the_job_in_any_script(name: str, tmp_path: Path) -> None:
    client: Any = RecordedClient(name)
    pull(client, "job_1", tmp_path, "last")
    assert (tmp_path / f"{name.replace(' ', '_')}-bbbbbbbb.pth").is_file()
