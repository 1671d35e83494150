"""`frs distill` against an API whose jobs a stand-in worker ends; the export is not run."""

import json
import os
import shutil
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from export_reports import REPORT
from PIL import Image
from stand_in_worker import StandInWorker

from api.datasets.checks import MAX_SYNC_IMAGES
from cli import distilling
from frs_client import Client
from store.artifacts.storage import open_artifacts
from store.db.database import open_database
from store.settings import Settings

CLASSES = ["circle", "square", "triangle", "star"]
SPEC = {
    "dataset": "replaced",
    "student": {"architecture": "gfl", "backbone": {"depth": 18, "width": 8}, "neck_channels": 16},
    "schedule": {"epochs": 3, "batch_size": 2, "image_size": [64, 64]},
}


@pytest.fixture
def worker(data: Path, tmp_path: Path) -> Iterator[None]:
    settings = Settings(data=data)
    database = open_database(settings.database_url)
    with StandInWorker(database, open_artifacts(settings), tmp_path):
        yield
    database.engine.dispose()


@pytest.fixture(autouse=True)
def exports(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replace the download of the exported files, and return the list of the jobs whose students were exported."""
    jobs: list[str] = []

    def finish_export(client: Client, job_id: str, export_job: Any, folder: Path, console: Any) -> Any:
        jobs.append(job_id)
        return {"report": REPORT.model_dump(mode="json"), "folder": str(folder)}

    monkeypatch.setattr(distilling, "finish_export", finish_export)
    return jobs


@pytest.fixture
def student(tmp_path: Path) -> Path:
    (tmp_path / "student.yaml").write_text(json.dumps(SPEC))
    return tmp_path / "student.yaml"


@pytest.fixture
def key_of_bob(data: Path) -> str:
    """A key of an owner other than the admin whose key the commands use."""
    return Client(data=data).keys.create({"name": "other", "owner": "bob", "scopes": ["submit"]}).token


@pytest.fixture
def bob(data: Path, key_of_bob: str) -> Client:
    return Client((data / "url").read_text(), key_of_bob)


def images(data: Path, folder: Path) -> Path:
    return shutil.copytree(data / "datasets" / "shapes", folder)


def jobs_of(data: Path, dataset: str) -> list[dict[str, Any]]:
    client = Client(data=data)
    return [client.get(f"/jobs/{row['id']}") for row in client.each("/jobs", dataset=dataset)]


def test_a_folder_becomes_a_data_set_a_teacher_a_student_and_its_files(
    frs: Any, data: Path, tmp_path: Path, worker: None, student: Path, exports: list[str]
) -> None:
    folder = images(data, tmp_path / "parts")
    options = ("--student", student, "--image-size", "96x64", "--epochs", 8, "--output", tmp_path / "out")
    output = frs("distill", folder, *options).output
    rows = {row["name"]: row for row in jobs_of(data, "parts")}
    distilled = rows["parts student"]
    spec, schedule = distilled["spec"], distilled["spec"]["schedule"]
    assert spec["teacher"]["job"] == rows["parts teacher"]["id"]
    assert (schedule["image_size"], schedule["epochs"], schedule["evaluate_every"]) == ([96, 64], 8, 2)
    assert len(distilled["baseline_job_ids"]) == 1
    assert exports == [distilled["id"]]
    assert list((tmp_path / "out" / distilled["id"]).glob("*.pth"))
    assert "student alone" in output and "student-int8.onnx" in output


def test_the_same_command_again_posts_nothing(
    frs: Any, data: Path, tmp_path: Path, worker: None, student: Path
) -> None:
    folder = images(data, tmp_path / "again")
    command = ("distill", folder, "--student", student, "--output", tmp_path / "out")
    frs(*command)
    before = len(jobs_of(data, "again"))
    assert "The service has it already" in frs(*command).output
    assert len(jobs_of(data, "again")) == before
    frs(*command, "--epochs", 5)
    assert len(jobs_of(data, "again")) > before, "another length is another teacher and student"


def test_a_teacher_that_exists_is_used(frs: Any, data: Path, tmp_path: Path, worker: None, student: Path) -> None:
    folder = images(data, tmp_path / "given")
    frs("distill", folder, "--student", student, "--output", tmp_path / "out")
    teacher = next(row["id"] for row in jobs_of(data, "given") if row["name"] == "given teacher")
    options = ("--teacher", teacher, "--seeds", 2, "--set", "distillation.feature_ratio=50")
    frs("distill", "given", "--student", student, *options, "--output", tmp_path / "out")
    specs = [job["spec"] for job in jobs_of(data, "given")]
    ratios = [spec["distillation"]["feature_ratio"] for spec in specs if spec["kind"] == "distill"]
    assert ratios.count(50) == 2, "both seeds"
    assert sum(job["name"] == "given teacher" for job in jobs_of(data, "given")) == 1


def test_a_source_that_is_no_file_and_no_data_set_is_an_error(frs: Any, shapes: None) -> None:
    error = frs("distill", "nothing", code=1).stderr
    assert "neither a file or folder nor a data set" in error and "shapes" in error


def test_images_of_an_admin_are_not_replaced_by_a_data_set_of_another_owner(
    frs: Any, data: Path, tmp_path: Path, worker: None, student: Path, bob: Client
) -> None:
    bobs = bob.datasets.upload("cells", images(data, tmp_path / "bobs"))
    command = ("distill", images(data, tmp_path / "cells"), "--student", student, "--output", tmp_path / "out")
    assert "The service has it already" not in frs(*command).output
    assert jobs_of(data, bobs.id) == []
    posted = len(jobs_of(data, "cells"))
    assert "The service has it already" in frs(*command).output
    assert len(jobs_of(data, "cells")) == posted


def test_an_admin_may_name_a_data_set_and_a_detector_of_another_owner_and_trains_once(
    frs: Any, data: Path, tmp_path: Path, worker: None, student: Path, bob: Client
) -> None:
    bob.datasets.upload("leaves", images(data, tmp_path / "bobs"))
    bob.datasets.upload("more leaves", images(data, tmp_path / "more"))
    (data / "models").mkdir(exist_ok=True)
    (data / "models" / "teacher.pth").write_bytes(b"weights")
    description = {"architecture": "gfl"}
    teacher = bob.detectors.register("oak", description=description, weights="teacher.pth", classes=CLASSES)
    command = ("distill", "leaves", "--student", student, "--output", tmp_path / "out", "--set")
    frs(*command, "unlabelled=more leaves", "--teacher", "oak")
    posted = len(jobs_of(data, "leaves"))
    for name in ("oak", teacher.id):
        frs(*command, "unlabelled=more leaves", "--teacher", name)
    assert len(jobs_of(data, "leaves")) == posted


def test_a_job_of_another_owner_is_not_continued(
    frs: Any, data: Path, tmp_path: Path, worker: None, student: Path, bob: Client, key_of_bob: str
) -> None:
    bob.datasets.upload("flowers", images(data, tmp_path / "bobs"))
    command = ("distill", "flowers", "--student", student, "--output", tmp_path / "out")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FRS_API_KEY", key_of_bob)
        frs(*command)
    posted = len(jobs_of(data, "flowers"))
    frs(*command)
    assert len(jobs_of(data, "flowers")) == 2 * posted


def test_an_invalid_student_is_refused_before_the_teacher_trains(frs: Any, shapes: None, student: Path) -> None:
    error = frs("distill", "shapes", "--student", student, "--set", "schedule.epochs=none", code=1).stderr
    assert "schedule.epochs" in error


@pytest.mark.parametrize("size", ["large", "320x", "x"])
def test_an_image_size_that_is_none_is_an_error(frs: Any, size: str) -> None:
    assert "is not a size such as 320x240" in frs("distill", "shapes", "--image-size", size, code=2).stderr


def test_without_a_service_one_is_started_and_stopped(
    frs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FRS_URL", "")  # as good as none
    folder = tmp_path / "data"
    result = frs("distill", "nothing", "--data", folder, code=1)
    assert "Service started: http://127.0.0.1:" in result.output
    assert "neither a file or folder nor a data set" in result.output
    with distilling.LocalService(folder, "127.0.0.1", distilling.free_port(), None, None):
        pass  # its lock is free: the first one has stopped


def test_a_teacher_may_be_named_by_its_detector(frs: Any, shapes: None, student: Path) -> None:
    error = frs("distill", "shapes", "--student", student, "--teacher", "nobody", code=1).stderr
    assert "There is no detector" in error


def test_a_data_set_that_is_checked_in_the_background_is_waited_for(
    frs: Any, data: Path, tmp_path: Path, worker: None, student: Path
) -> None:
    folder = tmp_path / "many"
    (folder / "images").mkdir(parents=True)
    Image.new("RGB", (16, 16)).save(folder / "images" / "0.png")
    for number in range(1, MAX_SYNC_IMAGES + 1):
        os.link(folder / "images" / "0.png", folder / "images" / f"{number}.png")
    numbers = range(MAX_SYNC_IMAGES + 1)
    content = {
        "images": [{"id": n, "file_name": f"{n}.png", "width": 16, "height": 16} for n in numbers],
        "annotations": [{"id": n, "image_id": n, "category_id": 1, "bbox": [2, 2, 9, 9]} for n in numbers],
        "categories": [{"id": 1, "name": "part"}],
    }
    (folder / "result.json").write_text(json.dumps(content))
    output = frs("distill", folder, "--student", student, "--output", tmp_path / "out").output
    assert "ready" in output


def test_issues_are_accepted_by_the_students_max_invalid_fraction(
    frs: Any, data: Path, tmp_path: Path, worker: None, student: Path
) -> None:
    folder = images(data, tmp_path / "cut")
    break_image(folder)
    command = ("distill", folder, "--student", student, "--output", tmp_path / "out")
    error = frs(*command, code=1).stderr
    assert "Data set cut has issues" in error and "`max_invalid_fraction` of 0.25 or more" in error
    frs(*command, "--set", "max_invalid_fraction=0.25")
    assert {job["spec"]["max_invalid_fraction"] for job in jobs_of(data, "cut")} == {0.25}
    before = len(jobs_of(data, "cut"))
    assert "The service has it already" in frs(*command, "--set", "max_invalid_fraction=0.25").output
    assert len(jobs_of(data, "cut")) == before


def test_corrected_files_replace_those_with_issues(
    frs: Any, data: Path, tmp_path: Path, worker: None, student: Path
) -> None:
    folder = images(data, tmp_path / "corrected")
    image = break_image(folder)
    command = ("distill", folder, "--student", student, "--output", tmp_path / "out")
    frs(*command, code=1)
    shutil.copy(data / "datasets" / "shapes" / "train" / image, folder / "train" / image)
    frs(*command)
    assert "ready" in frs("datasets", "list").output
    assert {job["status"] for job in jobs_of(data, "corrected")} == {"succeeded"}


def test_the_name_of_a_data_set_is_that_of_its_file_without_the_suffix_of_an_archive(
    frs: Any, data: Path, tmp_path: Path, student: Path
) -> None:
    folder = images(data, tmp_path / "folder")
    archive = Path(shutil.make_archive(str(tmp_path / "helmets.v1i.coco"), "zip", folder))
    shutil.copy(archive, tmp_path / "helmets.v2i.coco.ZIP")
    shutil.move(shutil.make_archive(str(tmp_path / "helmets"), "gztar", folder), tmp_path / "helmets.v3i.tar.gz")
    shutil.copytree(folder, tmp_path / unicodedata.normalize("NFD", "café.v4i"))
    for source in sorted(tmp_path.glob("*.v*i*")):
        frs("distill", source, "--student", student, "--teacher", "nobody", code=1)
    names = {"helmets.v1i.coco", "helmets.v2i.coco", "helmets.v3i", "café.v4i"}
    assert names <= {row["name"] for row in Client(data=data).each("/datasets")}
    found = frs("distill", tmp_path / unicodedata.normalize("NFD", "café.v4i"), "--teacher", "nobody", code=1)
    assert "The service has it already" in found.output


@pytest.mark.parametrize("name", ["helmets (1)", "-"])
def test_a_folder_whose_name_no_data_set_can_have_needs_a_name(frs: Any, tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    error = frs("distill", tmp_path / name, code=1).stderr
    assert f"A data set cannot have the name `{name}`" in error and "--name" in error


def break_image(folder: Path) -> str:
    """Cut the first training image, and return its name."""
    image = sorted((folder / "train").iterdir())[0]
    image.write_bytes(image.read_bytes()[:100])
    return image.name
