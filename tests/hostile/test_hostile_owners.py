"""Objects of another owner are indistinguishable from missing ones, on every route of the router (`api_routes`)."""

import re
from dataclasses import dataclass, replace
from typing import Any

import pytest
from api_routes import closed
from fastapi.testclient import TestClient

from api.http.json_body import STREAMED
from api.webhooks import sender
from store.db.audit import Actor
from store.sweeps import actions as sweeps
from store.sweeps.definition import SweepSpec

MISSING = "0" * 26
GFL = {"architecture": "gfl"}
SHARED = {"/recipes/{name}"}
"""Paths whose parameter names an object without an owner."""


@dataclass(frozen=True)
class OtherOwner:
    """The objects of the owner alice: ids and names."""

    client: TestClient
    job: str
    waiting: str
    checkpoint: str
    dataset: str
    detector: str
    plan: str
    webhook: str
    delivery: str
    sweep: str

    @property
    def ids(self) -> dict[str, str]:
        return {"job_id": self.job, "checkpoint_id": self.checkpoint, "name": "report.json", "image_id": "1"} | {
            "dataset": self.dataset,
            "detector": self.detector,
            "plan_id": self.plan,
            "webhook_id": self.webhook,
            "delivery_id": self.delivery,
            "sweep_id": self.sweep,
        }

    @property
    def secrets(self) -> list[str]:
        ids = [self.job, self.waiting, self.checkpoint, self.dataset, self.detector, self.plan]
        return [*ids, self.sweep, self.webhook, self.delivery, "alices", "alice"]

    @property
    def queries(self) -> dict[str, dict[str, str]]:
        """Query parameters of the routes that require them."""
        return {"/compare": {"jobs": f"{self.job},{self.waiting}"}}


@pytest.fixture(autouse=True)
def idle_sender(monkeypatch):
    """Send no deliveries, whose outcomes would change the objects of a test."""
    monkeypatch.setattr(sender, "POLL_SECONDS", 3600)


@pytest.fixture
def alice(service, client_of) -> OtherOwner:
    client = client_of("alice")
    alices_service = replace(service, client=client)
    dataset = client.post("/datasets", json={"name": "alices", **_files()}).json()
    webhook = client.post("/webhooks", json={"url": "https://hooks.invalid/alices"}).json()["id"]
    spec = {"kind": "train", "dataset": "alices", "student": GFL, "name": "alices", "tags": ["alices"]}
    lease = alices_service.claim(alices_service.submit(spec)["id"])
    checkpoint = alices_service.checkpoint(lease)
    alices_service.artifact(lease, "report.json", b"{}")
    alices_service.artifact(lease, "student-config.py", b"model = 1")
    alices_service.evaluate(lease, "student", 0.5)
    alices_service.finish(lease)
    detector = client.post("/detectors", json={"name": "alices", "job": lease.job_id}).json()
    plan = client.post("/jobs/plan?probe=true", json=spec).json()
    waiting = alices_service.submit(spec)["id"]
    [delivery] = client.get(f"/webhooks/{webhook}/deliveries").json()["data"]
    sweep = _stopped_sweep(service, spec, dataset["id"])
    ids = (lease.job_id, waiting, checkpoint, dataset["id"], detector["id"], plan["id"], webhook, delivery["id"], sweep)
    return OtherOwner(client, *ids)


def _stopped_sweep(service: Any, spec: dict[str, Any], dataset_id: str) -> str:
    """Add a sweep without jobs and return its id."""
    sweep_spec = SweepSpec.model_validate({"name": "alices", "spec": spec, "space": {"schedule.epochs": [1, 2]}})
    actor = Actor("alice", None)
    sweep, _ = service.transact(sweeps.add, sweep_spec, dataset_id=dataset_id, actor=actor)
    service.transact(sweeps.stop, sweep.id, actor)
    return str(sweep.id)


@pytest.fixture
def bob(client_of) -> TestClient:
    return client_of("bob")


def test_every_route_returns_404_for_objects_of_another_owner(app, alice, bob):
    """For each route, an id of alice and an unknown id give the same 404 response."""
    tried = 0
    before = _all_objects(app, alice)
    for route in closed(app):
        if not route.parameters or route.path in SHARED or "admin" in route.scopes:
            continue
        unknown = set(route.parameters) - alice.ids.keys()
        assert not unknown, f"add values for {unknown} of {route.path} to OtherOwner.ids"
        body = _body(route)
        for value in ({}, {"job_id": alice.waiting}, {"dataset": "alices", "detector": "alices"}):
            ids = alice.ids | value
            answers = [
                bob.request(route.method, route.filled(values.get), **body)
                for values in (ids, {name: id if name == "image_id" else _missing(id) for name, id in ids.items()})
            ]
            assert answers[0].status_code == 404, f"{route}: add a valid body to `_body`, or check the owner"
            assert _normalized(answers[0], ids) == _normalized(answers[1], ids)
            tried += 1
    assert tried > 50
    assert _all_objects(app, alice) == before


def _body(route: Any) -> dict[str, Any]:
    """Return the options of a request with a valid body for the route: an image where a file is expected."""
    if (route.method, route.path) in STREAMED:
        return {"content": b"image", "headers": {"Content-Type": "image/jpeg"}}
    return {} if route.method == "GET" else {"json": {}}


def test_lists_and_queries_do_not_reveal_objects_of_another_owner(app, alice, bob):
    for route in closed(app):
        if route.parameters or route.method != "GET" or route.scopes != ("read",):
            continue
        assert not _revealed(bob.get(route.path), alice.secrets), route
        for query in route.queries:
            for alices in alice.secrets:
                answer = bob.get(route.path, params={query: alices})
                nothing = bob.get(route.path, params={query: _missing(alices)})
                assert _normalized(answer, {"": alices}) == _normalized(nothing, {"": alices}), (route, query)


def test_a_cursor_of_another_owner_returns_no_rows(alice, bob, service):
    for path in ("/jobs", "/datasets", "/detectors", "/webhooks"):
        for client in (alice.client, service.client):
            cursor = client.get(path, params={"limit": 1}).json()["next_cursor"]
            if cursor:
                assert bob.get(path, params={"cursor": cursor}).json() == {"data": [], "next_cursor": None}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/jobs", lambda value: {"kind": "train", "dataset": value, "student": GFL}),
        ("/jobs", lambda value: {"kind": "train", "dataset": "bobs", "unlabelled": value, "student": GFL}),
        ("/jobs", lambda value: {"kind": "evaluate", "dataset": "bobs", "student": {"detector": value}}),
        ("/jobs", lambda value: {"kind": "distill", "dataset": "bobs", "student": GFL, "teacher": {"detector": value}}),
        ("/jobs", lambda value: {"kind": "distill", "dataset": "bobs", "student": GFL, "teacher": {"job": value}}),
        ("/jobs", lambda value: {"kind": "evaluate", "dataset": "bobs", "student": {"job": value}}),
        ("/jobs", lambda value: {"kind": "train", "dataset": "bobs", "student": GFL | {"init": {"detector": value}}}),
        (
            "/jobs",
            lambda value: {"dataset": "bobs", "student": GFL, "teacher": GFL | {"init": {"detector": value}}},
        ),
        ("/detectors", lambda value: {"name": "x", "job": value}),
        ("/sweeps", lambda value: _sweep({"dataset": value})),
        ("/sweeps", lambda value: _sweep({"teacher": {"detector": value}})),
        ("/sweeps", lambda value: _sweep({"teacher": {"job": value}})),
        ("/sweeps", lambda value: _sweep({"student": GFL | {"init": {"detector": value}}})),
        ("/sweeps", lambda value: _sweep({}) | {"space": {"student.init": [{"detector": value}]}}),
        ("/sweeps", lambda value: _sweep({}) | {"space": {"student.init.detector": [value]}}),
        ("/sweeps", lambda value: _sweep({}) | {"space": {"teacher": [{"job": value}]}}),
    ],
    ids=range(16),
)
def test_a_spec_cannot_reference_objects_of_another_owner(alice, bob, path, body):
    assert bob.post("/datasets", json={"name": "bobs", **_files()}).status_code == 201
    for alices in alice.secrets[:-1]:
        answer, nothing = (bob.post(path, json=body(value)) for value in (alices, _missing(alices)))
        assert answer.status_code == 422, answer.text
        assert _normalized(answer, {"": alices}) == _normalized(nothing, {"": alices})
    assert bob.get("/jobs").json()["data"] == []


def test_each_owner_has_a_separate_namespace(alice, bob, service):
    """Also for a name that is the id of another owner's object."""
    for name in ("alices", alice.dataset):
        bobs = bob.post("/datasets", json={"name": name, **_files()})
        assert bobs.status_code == 201
        assert bob.get(f"/datasets/{name}").json()["id"] == bobs.json()["id"] != alice.dataset
        job = bob.post("/jobs", json={"kind": "train", "dataset": name, "student": GFL}).json()
        assert [row["id"] for row in bob.get("/jobs", params={"dataset": name}).json()["data"]] == [job["id"]]
    assert alice.client.get("/datasets/alices").json()["id"] == alice.dataset


def test_jobs_of_another_owner_do_not_block_a_deletion(alice, bob, service):
    """Whether alice can delete her detector reveals nothing about bob's jobs."""
    weights = {"name": "alices", "description": GFL, "weights": "teacher.pth"}
    assert bob.post("/detectors", json=weights).status_code == 201
    bob.post("/datasets", json={"name": "bobs", **_files()})
    spec = {"kind": "evaluate", "dataset": "bobs", "student": {"detector": "alices"}}
    assert bob.post("/jobs", json=spec).status_code == 201
    assert alice.client.delete("/detectors/alices").status_code == 204
    service.assert_problem(bob.delete("/detectors/alices"), 409, "detector_in_use")


def test_the_same_idempotency_key_of_two_owners_creates_two_jobs(alice, bob):
    bob.post("/datasets", json={"name": "alices", **_files()})
    spec, headers = {"kind": "train", "dataset": "alices", "student": GFL}, {"Idempotency-Key": "same"}
    ids = {client.post("/jobs", json=spec, headers=headers).json()["id"] for client in (alice.client, bob)}
    assert len(ids) == 2
    again = bob.post("/jobs", json=spec, headers=headers)
    assert again.headers["idempotency-replayed"] == "true"
    assert again.json()["id"] in ids


def test_a_second_key_of_the_same_owner_sees_the_same(alice, client_of):
    assert client_of("alice", "read").get(f"/jobs/{alice.job}").status_code == 200


def test_an_admin_sees_all_objects_and_its_own_names_take_precedence(alice, bob, service):
    assert service.client.get(f"/jobs/{alice.job}").status_code == 200
    assert service.client.get("/datasets/alices").json()["id"] == alice.dataset
    own = service.client.post("/datasets", json={"name": "alices", **_files()}).json()
    assert service.client.get("/datasets/alices").json()["id"] == own["id"]
    assert service.client.post(f"/jobs/{alice.waiting}/cancel").status_code == 202
    assert {row["id"] for row in service.get("/jobs")["data"]} == {alice.job, alice.waiting}


@pytest.mark.parametrize(
    ("scope", "refused"),
    [
        ("read", {"submit", "metrics", "admin"}),
        ("submit", {"metrics", "admin"}),
        ("priority", {"read", "submit", "metrics", "admin"}),
        ("metrics", {"read", "submit", "admin"}),
        ("admin", set()),
    ],
)
def test_every_route_enforces_the_scope_of_the_key(app, client_of, scope, refused):
    client = client_of("eve", scope)
    for route in closed(app):
        path = route.filled(_anything)
        answer = client.request(route.method, path)
        code = answer.json().get("code") if answer.headers["content-type"] == "application/problem+json" else None
        assert (code == "scope_missing") == (route.scopes[0] in refused), (route, answer.text)
        assert (answer.status_code == 403) == (code == "scope_missing")


def _anything(parameter: str) -> str:
    prefixes = {"job_id": "job_", "checkpoint_id": "ckpt_", "key_id": "key_", "plan_id": "plan_"}
    prefixes |= {"webhook_id": "webhook_", "delivery_id": "delivery_", "sweep_id": "sweep_"}
    return f"{prefixes[parameter]}{MISSING}" if parameter in prefixes else "nothing"


def _all_objects(app, alice: OtherOwner) -> dict[str, Any]:
    """Return the content of every GET route for alice's objects, without streams, which may not end."""
    contents = {}
    for route in closed(app):
        if route.method == "GET" and route.scopes == ("read",) and not route.path.endswith("/stream"):
            ids = alice.ids | {"name": "gfl_r101_r50_1x"} if route.path in SHARED else alice.ids
            answer = alice.client.get(route.filled(ids.get), params=alice.queries.get(route.path))
            assert answer.status_code == 200, (route, answer.text)
            contents[route.path] = answer.json()["owners"] if route.path == "/usage" else answer.content
    return contents


def _missing(id: str) -> str:
    """Return an unknown id of the same kind and length."""
    prefix, _, suffix = id.rpartition("_")
    return f"{prefix}_{'0' * len(suffix)}" if prefix else "z" * len(id)


def _sweep(changes: dict[str, Any]) -> dict[str, Any]:
    spec = {"dataset": "bobs", "student": GFL, "teacher": GFL} | changes
    return {"spec": spec, "space": {"schedule.epochs": [1, 2]}}


def _files() -> dict[str, Any]:
    return {
        split: {"images": f"shapes/{split}", "annotations": f"shapes/annotations/instances_{split}.json"}
        for split in ("train", "val")
    }


def _normalized(answer: Any, ids: dict[str, str]) -> tuple[int, str]:
    text = re.sub(r'"request_id":"\w+"', "", answer.text)
    for id in ids.values():
        text = text.replace(id, "ID").replace(_missing(id), "ID")
    return answer.status_code, text


def _revealed(answer: Any, secrets: list[str]) -> list[str]:
    return [secret for secret in secrets if secret in answer.text]
