import hashlib
import json
import shutil
import threading

import pytest
from sqlalchemy import select

from api.datasets import checks
from frs.dataset.report import Report
from store.db.tables import Dataset


def test_a_small_data_set_is_checked_before_the_answer(service):
    response = service.client.post("/datasets", json={"name": "shapes"})
    dataset = response.json()
    assert response.status_code == 201
    assert response.headers["location"] == f"/datasets/{dataset['id']}"
    assert dataset["status"] == "ready"
    assert dataset["counts"]["train"]["images"] == 6
    assert dataset["counts"]["val"]["images"] == 3
    assert dataset["classes"] == [row["name"] for row in dataset["class_table"]]
    assert dataset["classes"] == ["circle", "square", "triangle", "star"]
    assert (dataset["issue_count"], dataset["issues"]) == (0, [])
    assert dataset["train"] == {"images": "shapes/train", "annotations": "shapes/annotations/instances_train.json"}
    assert dataset["created_at"].endswith("Z")


def test_it_is_found_by_id_and_by_name(service, shapes):
    assert service.get(f"/datasets/{shapes['id']}") == service.get("/datasets/shapes") == shapes


def test_the_check_report_is_there_in_full(service, shapes):
    found = service.get("/datasets/shapes/check")
    assert Report.model_validate(found["train"]).depth == "decoded"
    assert found["issues"] == []


def test_paths_may_be_given(service):
    half = {"images": "shapes/val", "annotations": "shapes/annotations/instances_val.json"}
    dataset = service.register("tiny", train=half, val=half)
    assert dataset["counts"]["train"]["images"] == 3


def test_problems_name_file_and_box(service):
    def alter(folder, document):
        (folder / "train" / "000002.jpg").unlink()
        document["annotations"][0]["bbox"][2] = 0

    service.altered_copy("broken", alter)
    dataset = service.register("broken")
    assert dataset["status"] == "has_problems"
    told = {issue["code"]: issue for issue in dataset["issues"]}
    assert told["image_missing"]["file"] == "000002.jpg"
    assert told["box_empty"]["annotation_id"] == 1
    assert told["box_empty"]["split"] == "train"


def test_halves_of_different_classes_are_a_problem(service):
    service.altered_copy("named", lambda _, document: document["categories"][3].update(name="comet"))
    dataset = service.register("named")
    assert dataset["status"] == "has_problems"
    assert [issue["code"] for issue in dataset["issues"]] == ["class_mismatch"]
    assert "comet" in dataset["issues"][0]["message"]


def test_an_annotation_file_that_is_not_json_is_a_problem(service):
    service.altered_copy("text", lambda folder, _: None)
    (service.settings.datasets_root / "text/annotations/instances_val.json").write_text("hello")
    dataset = service.register("text")
    assert dataset["status"] == "has_problems"
    assert dataset["counts"]["val"] is None
    assert [(issue["split"], issue["code"]) for issue in dataset["issues"]] == [("val", "bad_dataset")]


@pytest.mark.parametrize(
    ("body", "loc"),
    [
        ({"name": "nope"}, "train.images"),
        ({"name": "shapes", "val": {"images": "shapes/val", "annotations": "shapes/nope.json"}}, "val.annotations"),
        ({"name": "shapes", "val": {"images": "shapes/val", "annotations": "shapes/val"}}, "val.annotations"),
    ],
)
def test_files_that_are_not_there_are_named_by_their_field(service, body, loc):
    issue = service.refused(service.client.post("/datasets", json=body), 422, "files_not_found")
    assert issue["errors"][0]["loc"] == loc
    assert service.get("/datasets")["data"] == []


def test_a_link_leads_nowhere_outside(service, tmp_path):
    shutil.copytree(service.settings.datasets_root / "shapes", tmp_path / "outside")
    (service.settings.datasets_root / "linked").symlink_to(tmp_path / "outside")
    (service.settings.datasets_root / "circle").symlink_to(service.settings.datasets_root / "circle")
    for name in ("linked", "circle"):
        service.refused(service.client.post("/datasets", json={"name": name}), 422, "files_not_found")


def test_a_name_is_taken_once(service, shapes):
    service.refused(service.client.post("/datasets", json={"name": "shapes"}), 409, "name_taken")


def test_a_data_set_that_jobs_refer_to_stays(service, shapes):
    service.submit()
    service.refused(service.client.delete("/datasets/shapes"), 409, "dataset_in_use")
    assert service.get("/datasets/shapes") == shapes


def test_images_that_teach_a_job_unlabelled_stay_until_it_has_ended(service, shapes):
    service.altered_copy("more", lambda _folder, content: content["annotations"].clear())
    service.register("more")
    job = service.submit(kind="distill", teacher={"architecture": "gfl"}, unlabelled="more")
    service.refused(service.client.delete("/datasets/more"), 409, "dataset_in_use")
    service.client.post(f"/jobs/{job['id']}/cancel")
    assert service.client.delete("/datasets/more").status_code == 204


def test_a_data_set_without_jobs_can_be_forgotten(service, shapes):
    assert service.client.delete("/datasets/shapes").status_code == 204
    service.refused(service.client.get("/datasets/shapes"), 404, "dataset_not_found")
    assert (service.settings.datasets_root / "shapes").is_dir()


def test_data_sets_are_listed_newest_first_page_by_page(service):
    half = {"images": "shapes/val", "annotations": "shapes/annotations/instances_val.json"}
    names = [service.register(f"set {n}", train=half, val=half)["name"] for n in range(5)]
    seen, cursor = [], None
    while True:
        page = service.get("/datasets", params={"limit": 2} | ({"cursor": cursor} if cursor else {}))
        seen += [dataset["name"] for dataset in page["data"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == names[::-1]


@pytest.fixture
def held_check(monkeypatch):
    """Every set counts as large, and its check waits."""
    gate, done = threading.Event(), threading.Event()
    run = checks.run

    def held(*arguments):
        gate.wait(10)
        run(*arguments)
        done.set()

    monkeypatch.setattr(checks, "MAX_SYNC_IMAGES", 5)
    monkeypatch.setattr(checks, "run", held)
    yield gate, done
    gate.set()


def test_a_large_data_set_is_checked_after_the_answer(service, held_check):
    gate, done = held_check
    dataset = service.register("shapes")
    assert (dataset["status"], dataset["counts"], dataset["class_table"]) == ("checking", None, None)
    spec = {"kind": "train", "dataset": "shapes", "student": {"architecture": "gfl"}}
    issue = service.refused(service.client.post("/jobs", json=spec), 422, "dataset_not_ready")
    assert dataset["id"] in issue["hint"]
    gate.set()
    assert done.wait(10)
    assert service.get("/datasets/shapes")["status"] == "ready"


def test_a_check_that_a_restart_cut_off_is_done_again(service, shapes, held_check):
    gate, done = held_check
    with service.database.write() as session:
        row = session.get_one(Dataset, shapes["id"])
        row.status, row.check_result, row.classes = "checking", None, None
        session.commit()
    gate.set()
    checks.resume(service.database, service.settings)
    assert done.wait(10)
    assert service.get("/datasets/shapes") == shapes


def test_images_are_counted_without_parsing(tmp_path):
    file = tmp_path / "a.json"
    file.write_text(json.dumps({"images": [{"file_name": "x.jpg"}] * (checks.MAX_SYNC_IMAGES + 1)}))
    assert checks.is_large([file])
    file.write_text(json.dumps({"images": [{"file_name": "x.jpg"}] * checks.MAX_SYNC_IMAGES}))
    assert not checks.is_large([file])


def hashes_of(service, name):
    with service.database.read() as session:
        return session.scalars(select(Dataset.hashes).where(Dataset.name == name)).one()


def test_what_was_checked_is_remembered_by_its_hash(service, shapes):
    folder = service.settings.datasets_root / "shapes" / "annotations"
    contents = {half: (folder / f"instances_{half}.json").read_bytes() for half in ("train", "val")}
    assert hashes_of(service, "shapes") == {
        half: hashlib.sha256(content).hexdigest() for half, content in contents.items()
    }


def test_a_half_that_cannot_be_read_has_problems_and_no_hash(service, monkeypatch):
    def unreadable(path):
        raise PermissionError(13, "no")

    monkeypatch.setattr(checks, "digest", unreadable)
    assert service.register("shapes")["status"] == "ready"
    assert hashes_of(service, "shapes") == {}
