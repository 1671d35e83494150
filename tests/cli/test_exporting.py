"""`frs export`: the files arrive, and the exit status says whether they passed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from export_reports import REPORT
from rich.console import Console

from cli import exporting, render
from frs.evaluation.export_report import nothing_to_compare
from frs_client import Client


@pytest.fixture
def answered(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Any]]:
    """Return a function that replaces the service: its export ends at once, with the given status and verdict."""

    def answer(status: str = "succeeded", passed: bool = True) -> list[Any]:
        posted: list[Any] = []
        job = {"id": "job_2", "status": status, "error": {"message": "It broke.", "hint": "Mend it."}}

        def post(self: Client, path: str, body: Any) -> Any:
            posted.append((path, body))
            return job

        def each(self: Client, path: str) -> Any:
            if path.endswith("/exports"):
                report = REPORT.model_dump(mode="json")
                report["files"][0]["passed"] = passed
                return iter([{"job_id": "job_2", "passed": passed, "report": report}])
            return iter([{"name": name, "sha256": "c" * 64} for name in ("student.onnx", "frs_runner.py", "train.log")])

        monkeypatch.setattr(Client, "post", post)
        monkeypatch.setattr(Client, "each", each)
        monkeypatch.setattr(Client, "download", lambda self, path, target, sha256: target.write_text(path))
        monkeypatch.setattr(exporting, "follow", lambda client, id, console: job)
        return posted

    return answer


def test_the_files_are_downloaded(frs: Any, answered: Callable[..., list[Any]], tmp_path: Path) -> None:
    posted = answered()
    result = frs("export", "job_1", "--format", "onnx-int8", "--max-drop", 2, "--fixed", "--output", tmp_path / "out")
    body = {"input_size": "fixed", "formats": ["onnx-int8"], "max_drop": 2.0}
    assert posted == [("/jobs/job_1/exports", body)]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"student.onnx", "frs_runner.py"}
    assert "student-int8.onnx" in result.output
    assert "python frs_runner.py" in result.output


def test_the_files_of_each_student_have_a_folder_of_their_own(
    frs: Any, answered: Callable[..., list[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    answered()
    for job_id in ("job_1", "job_3"):
        assert f"exports/{job_id}" in frs("export", job_id).output
    assert {path.name for path in (tmp_path / "exports").iterdir()} == {"job_1", "job_3"}
    assert (tmp_path / "exports" / "job_1" / "student.onnx").is_file()


def test_a_file_that_did_not_pass_sets_the_exit_status(
    frs: Any, answered: Callable[..., list[Any]], tmp_path: Path
) -> None:
    answered(passed=False)
    output = frs("export", "job_1", "--output", tmp_path, code=1).output
    assert "loses more than 0.5 points" in output
    assert "conv_7" in output


def test_a_student_that_finds_no_objects_has_nothing_to_compare_and_its_files_do_not_pass() -> None:
    assert nothing_to_compare(0.5) is None
    file = REPORT.files[0].model_copy(update={"passed": False, "nothing_to_compare": nothing_to_compare(0.0)})
    report = REPORT.model_copy(update={"files": [file, file]})
    assert not report.passed
    console = Console(width=140, record=True)
    console.print(render.export({"report": report.model_dump(mode="json"), "folder": "exports"}))
    text = console.export_text()
    assert text.count("Nothing to compare: the student finds no objects (mAP 0.0 points)") == 1
    assert "loses more than" not in text and text.count("nothing to compare") == 2


def test_a_latency_that_was_measured_on_a_busy_machine_is_marked() -> None:
    def text_of(load: float) -> str:
        console = Console(width=140, record=True)
        report = REPORT.model_copy(update={"load": load})
        console.print(render.export({"report": report.model_dump(mode="json"), "folder": "exports"}))
        return console.export_text()

    assert "9.0*" in text_of(3.0) and "measured on a busy machine" in text_of(3.0)
    assert "*" not in text_of(0.5)


def test_a_failed_export_shows_its_error(frs: Any, answered: Callable[..., list[Any]], tmp_path: Path) -> None:
    answered(status="failed")
    output = frs("export", "job_1", "--output", tmp_path, code=1).output
    assert "It broke." in output
    assert "Mend it." in output


def test_the_table_has_the_student_and_each_file() -> None:
    console = Console(width=140, record=True)
    console.print(render.export({"report": REPORT.model_dump(mode="json"), "folder": "exports"}))
    text = console.export_text()
    assert "student (torch)" in text
    assert "+10.00" in text
    assert "+5.00 to +15.00" in text
    assert "1 of 10" in text
