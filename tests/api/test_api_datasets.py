"""Registration, check, listing and deletion of data sets."""

import hashlib
import json
import shutil
import threading

import pytest
from sqlalchemy import event, select, update
from sqlalchemy.exc import OperationalError
from waiting import until

from api.datasets import checks
from frs.dataset.report import Report
from store.db.tables import Dataset, Job


def test_a_small_data_set_is_checked_before_the_response(service):
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


def test_a_data_set_is_found_by_id_and_by_name(service, shapes):
    assert service.get(f"/datasets/{shapes['id']}") == service.get("/datasets/shapes") == shapes


def test_an_admin_may_leave_out_data_sets_and_jobs_of_other_owners(service, shapes):
    bobs = service.submit()["id"]
    for table in (Dataset, Job):
        service.transact(lambda session, table=table: session.execute(update(table).values(owner="bob")))
    own = {"/datasets": service.register("shapes")["id"], "/jobs": service.submit()["id"]}
    for path, row_id in own.items():
        assert len(service.get(path)["data"]) == 2
        assert [row["id"] for row in service.get(f"{path}?own=true")["data"]] == [row_id]
    assert service.get(f"/jobs/{bobs}")["owner"] == "bob"


def test_the_check_returns_the_complete_report(service, shapes):
    check_result = service.get("/datasets/shapes/check")
    assert Report.model_validate(check_result["train"]).depth == "decoded"
    assert check_result["issues"] == []


def test_paths_can_be_set(service):
    split = {"images": "shapes/val", "annotations": "shapes/annotations/instances_val.json"}
    dataset = service.register("tiny", train=split, val=split)
    assert dataset["counts"]["train"]["images"] == 3


def test_issues_contain_file_and_box(service):
    def alter(folder, document):
        (folder / "train" / "000002.jpg").unlink()
        document["annotations"][0]["bbox"][2] = 0

    service.copy_dataset_altered("broken", alter)
    dataset = service.register("broken")
    assert dataset["status"] == "has_problems"
    issues_by_code = {issue["code"]: issue for issue in dataset["issues"]}
    assert issues_by_code["image_missing"]["file"] == "000002.jpg"
    assert issues_by_code["box_empty"]["annotation_id"] == 1
    assert issues_by_code["box_empty"]["split"] == "train"
    assert "width and height must be above 0" in issues_by_code["box_empty"]["hint"]


def test_splits_with_different_classes_are_an_issue(service):
    service.copy_dataset_altered("named", lambda _, document: document["categories"][3].update(name="comet"))
    dataset = service.register("named")
    assert dataset["status"] == "has_problems"
    assert [issue["code"] for issue in dataset["issues"]] == ["class_mismatch"]
    assert "comet" in dataset["issues"][0]["message"]


def test_an_annotation_file_that_is_not_json_is_an_issue(service):
    service.copy_dataset_altered("text", lambda folder, _: None)
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
def test_missing_files_are_rejected_with_their_field(service, body, loc):
    issue = service.assert_problem(service.client.post("/datasets", json=body), 422, "files_not_found")
    assert issue["errors"][0]["loc"] == loc
    assert service.get("/datasets")["data"] == []


def test_links_to_files_outside_the_data_folder_are_rejected(service, tmp_path):
    shutil.copytree(service.settings.datasets_root / "shapes", tmp_path / "outside")
    (service.settings.datasets_root / "linked").symlink_to(tmp_path / "outside")
    (service.settings.datasets_root / "circle").symlink_to(service.settings.datasets_root / "circle")
    for name in ("linked", "circle"):
        service.assert_problem(service.client.post("/datasets", json={"name": name}), 422, "files_not_found")


def test_a_name_can_be_used_once(service, shapes):
    service.assert_problem(service.client.post("/datasets", json={"name": "shapes"}), 409, "name_taken")


def test_a_data_set_of_a_job_cannot_be_deleted(service, shapes):
    service.submit()
    service.assert_problem(service.client.delete("/datasets/shapes"), 409, "dataset_in_use")
    assert service.get("/datasets/shapes") == shapes


def test_an_unlabelled_data_set_cannot_be_deleted_before_its_job_has_ended(service, shapes):
    service.copy_dataset_altered("more", lambda _folder, content: content["annotations"].clear())
    service.register("more")
    job = service.submit(kind="distill", teacher={"architecture": "gfl"}, unlabelled="more")
    service.assert_problem(service.client.delete("/datasets/more"), 409, "dataset_in_use")
    service.client.post(f"/jobs/{job['id']}/cancel")
    assert service.client.delete("/datasets/more").status_code == 204


def test_a_data_set_without_jobs_can_be_deleted(service, shapes):
    assert service.client.delete("/datasets/shapes").status_code == 204
    service.assert_problem(service.client.get("/datasets/shapes"), 404, "dataset_not_found")
    assert (service.settings.datasets_root / "shapes").is_dir()


def test_data_sets_are_listed_newest_first_page_by_page(service):
    split = {"images": "shapes/val", "annotations": "shapes/annotations/instances_val.json"}
    names = [service.register(f"set {n}", train=split, val=split)["name"] for n in range(5)]
    names_listed, cursor = [], None
    while True:
        page = service.get("/datasets", params={"limit": 2} | ({"cursor": cursor} if cursor else {}))
        names_listed += [dataset["name"] for dataset in page["data"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert names_listed == names[::-1]


@pytest.fixture
def blocked_check(monkeypatch):
    """Make every data set large, and block its check until the first event is set."""
    release, done = threading.Event(), threading.Event()
    run = checks.run

    def run_when_released(*arguments):
        release.wait(10)
        run(*arguments)
        done.set()

    monkeypatch.setattr(checks, "MAX_SYNC_IMAGES", 5)
    monkeypatch.setattr(checks, "run", run_when_released)
    yield release, done
    release.set()


def test_a_large_data_set_is_checked_after_the_response(service, blocked_check):
    release, done = blocked_check
    dataset = service.register("shapes")
    assert (dataset["status"], dataset["counts"], dataset["class_table"]) == ("checking", None, None)
    spec = {"kind": "train", "dataset": "shapes", "student": {"architecture": "gfl"}}
    issue = service.assert_problem(service.client.post("/jobs", json=spec), 422, "dataset_not_ready")
    assert issue["hint"] == "Try again when its check has ended."
    release.set()
    assert done.wait(10)
    assert service.get("/datasets/shapes")["status"] == "ready"


def test_a_check_interrupted_by_a_restart_is_repeated(service, shapes, blocked_check):
    release, done = blocked_check
    with service.database.write() as session:
        row = session.get_one(Dataset, shapes["id"])
        row.status, row.check_result, row.classes = "checking", None, None
        session.commit()
    release.set()
    checks.resume(service.client.app.state.context)
    assert done.wait(10)
    assert service.get("/datasets/shapes") == shapes


def test_a_check_whose_result_is_not_stored_for_long_is_repeated(service, monkeypatch):
    monkeypatch.setattr(checks, "_RETRY_DELAYS", (0.0,))
    monkeypatch.setattr(checks, "MAX_SYNC_IMAGES", 5)
    failures = iter(range(9))

    def fail(connection, cursor, statement, *_):
        if statement.startswith("UPDATE datasets ") and next(failures, None) is not None:
            raise OperationalError(statement, {}, Exception("the connection was lost"))

    event.listen(service.database.engine, "before_cursor_execute", fail)
    assert service.register("shapes")["status"] == "checking"
    until(lambda: service.get("/datasets/shapes")["status"] == "ready")
    assert next(failures, None) is None


def test_images_are_counted_without_parsing(tmp_path):
    file = tmp_path / "a.json"
    file.write_text(json.dumps({"images": [{"file_name": "x.jpg"}] * (checks.MAX_SYNC_IMAGES + 1)}))
    assert checks.is_large([file])
    file.write_text(json.dumps({"images": [{"file_name": "x.jpg"}] * checks.MAX_SYNC_IMAGES}))
    assert not checks.is_large([file])


def hashes_of(service, name):
    with service.database.read() as session:
        return session.scalars(select(Dataset.hashes).where(Dataset.name == name)).one()


def test_hashes_of_the_annotation_files_are_stored(service, shapes):
    folder = service.settings.datasets_root / "shapes" / "annotations"
    contents = {split: (folder / f"instances_{split}.json").read_bytes() for split in ("train", "val")}
    assert hashes_of(service, "shapes") == {
        split: hashlib.sha256(content).hexdigest() for split, content in contents.items()
    }


def test_an_annotation_file_that_cannot_be_hashed_has_no_hash(service, monkeypatch):
    def unreadable(path):
        raise PermissionError(13, "no")

    monkeypatch.setattr(checks, "digest", unreadable)
    assert service.register("shapes")["status"] == "ready"
    assert hashes_of(service, "shapes") == {}


def test_a_test_folder_is_named_as_read_by_no_job(service):
    service.copy_dataset_altered("tested", lambda folder, document: (folder / "test").mkdir())
    dataset = service.register("tested")
    assert dataset["status"] == "ready"
    [warning] = dataset["warnings"]
    assert warning.startswith("The folder test: no job reads it")
    assert service.get("/datasets/tested/check")["warnings"] == [warning]


def test_a_folder_among_the_data_sets_is_not_taken_for_a_test_split(service):
    service.copy_dataset_altered("plain", lambda folder, document: None)
    (service.settings.datasets_root / "test").mkdir()
    (service.settings.datasets_root / "plain" / "train").rename(service.settings.datasets_root / "pictures")
    files = {"images": "pictures", "annotations": "plain/annotations/instances_train.json"}
    answer = service.client.post("/datasets", json={"name": "plain", "train": files}).json()
    assert answer["warnings"] == []


def test_class_names_are_compared_when_the_data_set_is_checked_and_not_for_each_answer(service, monkeypatch):
    def rename(folder, document):
        val = folder / "annotations" / "instances_val.json"
        document["categories"][0]["name"] = "squares"
        val.write_text(json.dumps(json.loads(val.read_text()) | {"categories": document["categories"]}))

    service.copy_dataset_altered("similar", rename)
    [warning] = service.register("similar")["warnings"]
    assert "'squares' and 'square'" in warning
    monkeypatch.setattr(checks, "describe_similar_classes", None)
    assert service.get("/datasets/similar")["warnings"] == [warning]
