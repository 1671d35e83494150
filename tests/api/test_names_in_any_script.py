"""Names of data sets, detectors, jobs and keys in any script; refused are invisible and control characters."""

import shutil
import unicodedata
from urllib.parse import quote

import pytest

from frs.spec import JobSpec, baseline_of, comparison_of

TRAIN = {"kind": "train", "dataset": "shapes", "student": {"architecture": "gfl"}, "schedule": {"epochs": 1}}
NAMES = [
    "Straße 12",
    "données de l\u2019été",
    "猫と犬の写真",
    "кошки и собаки",
    "صور_الطرق",
    "می\u200cخواهم",
    "हिन्दी",
    "👩\u200d🔬 scenes",
    "Ünïcödé@2026",
    "日本 v1.0",
]
REFUSED = [
    ("a\u202eb", "right-to-left override"),
    ("abc\u2066", "isolate"),
    ("a\u200bb", "zero-width space"),
    ("a\u200db", "joiner between ASCII letters, where it is invisible"),
    ("\ufeffabc", "byte order mark"),
    ("a\u00a0b", "no-break space"),
    ("a\tb", "control character"),
    ("a\x7f", "control character"),
    ("a\u0085b", "control character"),
    ("\u0301a", "begins with a combining mark"),
    (" a", "begins with a space"),
    ("-猫", "begins with punctuation"),
    ("猫/犬", "separator of paths"),
    ("猫\\犬", "separator of paths"),
    ("\ue000", "private use"),
    ("猫" * 67, "201 bytes"),
    ("", "empty"),
]


@pytest.mark.parametrize("name", NAMES)
def test_data_sets_detectors_jobs_and_keys_take_the_name_and_are_found_by_it(service, name):
    shutil.copytree(service.settings.datasets_root / "shapes", service.settings.datasets_root / name)
    dataset = service.register(name)
    detector = {"name": name, "description": {"architecture": "gfl"}, "weights": "teacher.pth"}
    assert service.client.post("/detectors", json=detector).json()["name"] == name
    assert (
        service.client.post("/api-keys", json={"name": name, "owner": "x", "scopes": ["read"]}).json()["name"] == name
    )
    job = service.submit(TRAIN | {"dataset": name, "name": name})
    assert (job["name"], job["spec"]["dataset"]) == (name, name)
    assert service.get(f"/datasets/{quote(name)}")["id"] == dataset["id"]
    assert service.get(f"/detectors/{quote(name)}")["name"] == name
    assert [row["id"] for row in service.get("/jobs", params={"dataset": name})["data"]] == [job["id"]]
    changed = service.client.patch(f"/jobs/{job['id']}", json={"name": f"{name}-2"})
    assert changed.json()["name"] == f"{name}-2"


@pytest.mark.parametrize(("name", "reason"), REFUSED)
def test_a_name_that_cannot_be_read_is_refused(shared_service, name, reason):
    response = shared_service.client.post("/jobs", json=TRAIN | {"name": name})
    problem = shared_service.assert_problem(response, 422, "invalid_request")
    assert [error["loc"] for error in problem["errors"]] == ["name"], reason


@pytest.mark.parametrize("name", ["été", "Ünïcödé", "が", "한국어", "Å"])
def test_both_normal_forms_are_the_same_name(service, name):
    decomposed, composed = unicodedata.normalize("NFD", name), unicodedata.normalize("NFC", name)
    assert decomposed != composed
    service.register("shapes")
    body = {"name": decomposed, "description": {"architecture": "gfl"}, "weights": "teacher.pth"}
    assert service.client.post("/detectors", json=body).json()["name"] == composed
    service.assert_problem(service.client.post("/detectors", json=body | {"name": composed}), 409, "name_taken")
    assert service.get(f"/detectors/{quote(decomposed)}")["name"] == composed


@pytest.mark.parametrize("name", [*NAMES, "猫" * 66, "é" * 100, "x" * 100])
def test_derived_jobs_have_valid_names(name):
    teacher = {"architecture": "gfl"}
    spec = JobSpec.model_validate(
        {"dataset": "shapes", "name": name, "teacher": teacher, "student": teacher, "baseline": {"seeds": 2}}
    )
    for derived, suffix in [(baseline_of(spec, 1), "-baseline-seed1"), (comparison_of(spec), "-comparison")]:
        assert derived.name.endswith(suffix) and len(derived.name.encode()) <= 200
        assert JobSpec.model_validate(derived.model_dump()) == derived


@pytest.mark.parametrize("name", NAMES)
def test_a_downloaded_file_has_the_name_of_its_job(service, shapes, name):
    job_id = service.succeeded_job(name=name)
    [checkpoint] = service.get(f"/jobs/{job_id}/checkpoints")["data"]
    header = service.client.get(f"/checkpoints/{checkpoint['id']}/content").headers["content-disposition"]
    file_name = f"{name}-{checkpoint['sha256'][:8]}.pth"
    assert header.endswith(f"; filename*=UTF-8''{quote(file_name, safe='')}") and header.isascii()


def test_the_name_of_an_upload_is_checked_too(shared_service):
    query = {"name": "a\u202eb", "description": '{"architecture": "gfl"}'}
    response = shared_service.client.post("/detectors/upload", params=query, content=b"x")
    shared_service.assert_problem(response, 422, "invalid_request")
