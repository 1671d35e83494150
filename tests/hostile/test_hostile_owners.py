"""S10: to others, what an owner has is exactly what was never there. Found by walking the router: see `api_routes`."""

import re
from dataclasses import dataclass, replace
from typing import Any

import pytest
from api_routes import closed
from fastapi.testclient import TestClient

MISSING = "0" * 26
GFL = {"architecture": "gfl"}
BODIES: dict[str, Any] = {}
"""By method and path, where an empty object is not enough to get past the body."""
SHARED = {"/recipes/{name}"}
"""Paths whose parameter names what belongs to nobody."""


@dataclass(frozen=True)
class OtherOwner:
    """What alice has: ids, and the names she gave."""

    client: TestClient
    job: str
    waiting: str
    checkpoint: str
    dataset: str
    detector: str
    plan: str

    @property
    def ids(self) -> dict[str, str]:
        return {"job_id": self.job, "checkpoint_id": self.checkpoint, "name": "report.json"} | {
            "dataset": self.dataset,
            "detector": self.detector,
            "plan_id": self.plan,
        }

    @property
    def secrets(self) -> list[str]:
        return [self.job, self.waiting, self.checkpoint, self.dataset, self.detector, self.plan, "alices", "alice"]

    @property
    def queries(self) -> dict[str, dict[str, str]]:
        """Of routes that cannot do without."""
        return {"/compare": {"jobs": f"{self.job},{self.waiting}"}}


@pytest.fixture
def alice(service, client_of) -> OtherOwner:
    client = client_of("alice")
    hers = replace(service, client=client)
    dataset = client.post("/datasets", json={"name": "alices", **_files()}).json()
    spec = {"kind": "train", "dataset": "alices", "student": GFL, "name": "alices", "tags": ["alices"]}
    lease = hers.claim(hers.submit(spec)["id"])
    checkpoint = hers.checkpoint(lease)
    hers.artifact(lease, "report.json", b"{}")
    hers.artifact(lease, "student-config.py", b"model = 1")
    hers.evaluate(lease, "student", 0.5)
    hers.settle(lease)
    detector = client.post("/detectors", json={"name": "alices", "job": lease.job_id}).json()
    plan = client.post("/jobs/plan?probe=true", json=spec).json()
    waiting = hers.submit(spec)["id"]
    return OtherOwner(client, lease.job_id, waiting, checkpoint, dataset["id"], detector["id"], plan["id"])


@pytest.fixture
def bob(client_of) -> TestClient:
    return client_of("bob")


def test_every_route_answers_another_owner_as_if_nothing_were_there(app, alice, bob):
    """Each route with each of her ids, and with an id that never was: 404 both times, the same to the letter."""
    tried = 0
    before = _all_she_has(app, alice)
    for route in closed(app):
        if not route.parameters or route.path in SHARED or "admin" in route.scopes:
            continue
        unknown = set(route.parameters) - alice.ids.keys()
        assert not unknown, f"say in OtherOwner.ids what of hers {unknown} of {route.path} can be"
        body = BODIES.get(f"{route.method} {route.path}", {})
        for value in ({}, {"job_id": alice.waiting}, {"dataset": "alices", "detector": "alices"}):
            ids = alice.ids | value
            answers = [
                bob.request(route.method, route.filled(made.get), json=body if route.method != "GET" else None)
                for made in (ids, {name: _missing(id) for name, id in ids.items()})
            ]
            assert answers[0].status_code == 404, f"{route}: say in BODIES what it takes, or whose it is"
            assert _told(answers[0], ids) == _told(answers[1], ids)
            tried += 1
    assert tried > 50
    assert _all_she_has(app, alice) == before


def test_no_list_or_query_tells_of_another_owners_things(app, alice, bob):
    for route in closed(app):
        if route.parameters or route.method != "GET" or "admin" in route.scopes:
            continue
        assert not _finds(bob.get(route.path), alice.secrets), route
        for query in route.queries:
            for hers in alice.secrets:
                answer = bob.get(route.path, params={query: hers})
                nothing = bob.get(route.path, params={query: _missing(hers)})
                assert _told(answer, {"": hers}) == _told(nothing, {"": hers}), (route, query)


def test_her_cursor_pages_through_her_things_for_her_alone(alice, bob, service):
    for path in ("/jobs", "/datasets", "/detectors"):
        for client in (alice.client, service.client):
            cursor = client.get(path, params={"limit": 1}).json()["next_cursor"]
            if cursor:
                assert bob.get(path, params={"cursor": cursor}).json() == {"data": [], "next_cursor": None}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/jobs", lambda it: {"kind": "train", "dataset": it, "student": GFL}),
        ("/jobs", lambda it: {"kind": "train", "dataset": "bobs", "unlabelled": it, "student": GFL}),
        ("/jobs", lambda it: {"kind": "evaluate", "dataset": "bobs", "student": {"detector": it}}),
        ("/jobs", lambda it: {"kind": "distill", "dataset": "bobs", "student": GFL, "teacher": {"detector": it}}),
        ("/jobs", lambda it: {"kind": "distill", "dataset": "bobs", "student": GFL, "teacher": {"job": it}}),
        ("/jobs", lambda it: {"kind": "evaluate", "dataset": "bobs", "student": {"job": it}}),
        ("/jobs", lambda it: {"kind": "train", "dataset": "bobs", "student": GFL | {"init": {"detector": it}}}),
        (
            "/jobs",
            lambda it: {"dataset": "bobs", "student": GFL, "teacher": GFL | {"init": {"detector": it}}},
        ),
        ("/detectors", lambda it: {"name": "x", "job": it}),
    ],
    ids=range(9),
)
def test_a_spec_that_names_hers_names_nothing(alice, bob, path, body):
    assert bob.post("/datasets", json={"name": "bobs", **_files()}).status_code == 201
    for hers in alice.secrets[:-1]:
        answer, nothing = (bob.post(path, json=body(it)) for it in (hers, _missing(hers)))
        assert answer.status_code == 422, answer.text
        assert _told(answer, {"": hers}) == _told(nothing, {"": hers})
    assert bob.get("/jobs").json()["data"] == []


def test_names_are_each_owners_own(alice, bob, service):
    """Even a name that is the id of somebody else's."""
    for name in ("alices", alice.dataset):
        his = bob.post("/datasets", json={"name": name, **_files()})
        assert his.status_code == 201
        assert bob.get(f"/datasets/{name}").json()["id"] == his.json()["id"] != alice.dataset
        job = bob.post("/jobs", json={"kind": "train", "dataset": name, "student": GFL}).json()
        assert [row["id"] for row in bob.get("/jobs", params={"dataset": name}).json()["data"]] == [job["id"]]
    assert alice.client.get("/datasets/alices").json()["id"] == alice.dataset


def test_his_use_of_a_name_does_not_hold_hers(alice, bob, service):
    """Whether her detector can be deleted tells nothing of his jobs."""
    weights = {"name": "alices", "description": GFL, "weights": "teacher.pth"}
    assert bob.post("/detectors", json=weights).status_code == 201
    bob.post("/datasets", json={"name": "bobs", **_files()})
    spec = {"kind": "evaluate", "dataset": "bobs", "student": {"detector": "alices"}}
    assert bob.post("/jobs", json=spec).status_code == 201
    assert alice.client.delete("/detectors/alices").status_code == 204
    service.refused(bob.delete("/detectors/alices"), 409, "detector_in_use")


def test_one_idempotency_key_of_two_owners_makes_two_jobs(alice, bob):
    bob.post("/datasets", json={"name": "alices", **_files()})
    spec, headers = {"kind": "train", "dataset": "alices", "student": GFL}, {"Idempotency-Key": "same"}
    ids = {client.post("/jobs", json=spec, headers=headers).json()["id"] for client in (alice.client, bob)}
    assert len(ids) == 2
    again = bob.post("/jobs", json=spec, headers=headers)
    assert again.headers["idempotency-replayed"] == "true"
    assert again.json()["id"] in ids


def test_a_second_key_of_the_same_owner_sees_the_same(alice, client_of):
    assert client_of("alice", "read").get(f"/jobs/{alice.job}").status_code == 200


def test_an_admin_sees_all_and_finds_its_own_names_first(alice, bob, service):
    assert service.client.get(f"/jobs/{alice.job}").status_code == 200
    assert service.client.get("/datasets/alices").json()["id"] == alice.dataset
    own = service.client.post("/datasets", json={"name": "alices", **_files()}).json()
    assert service.client.get("/datasets/alices").json()["id"] == own["id"]
    assert service.client.post(f"/jobs/{alice.waiting}/cancel").status_code == 202
    assert {row["id"] for row in service.get("/jobs")["data"]} == {alice.job, alice.waiting}


@pytest.mark.parametrize(("scope", "refused"), [("read", {"submit", "admin"}), ("submit", {"admin"}), ("admin", set())])
def test_a_key_does_what_its_scope_says_on_every_route(app, client_of, scope, refused):
    client = client_of("eve", scope)
    for route in closed(app):
        path = route.filled(_anything)
        answer = client.request(route.method, path)
        code = answer.json().get("code") if answer.headers["content-type"] == "application/problem+json" else None
        assert (code == "scope_missing") == (route.scopes[0] in refused), (route, answer.text)
        assert (answer.status_code == 403) == (code == "scope_missing")


def _anything(parameter: str) -> str:
    prefixes = {"job_id": "job_", "checkpoint_id": "ckpt_", "key_id": "key_", "plan_id": "plan_"}
    return f"{prefixes[parameter]}{MISSING}" if parameter in prefixes else "nothing"


def _all_she_has(app, alice: OtherOwner) -> dict[str, Any]:
    """Every GET of hers, which has to be there; streams apart, which need not end."""
    shown = {}
    for route in closed(app):
        if route.method == "GET" and "admin" not in route.scopes and not route.path.endswith("/stream"):
            ids = alice.ids | {"name": "gfl_r101_r50_1x"} if route.path in SHARED else alice.ids
            answer = alice.client.get(route.filled(ids.get), params=alice.queries.get(route.path))
            assert answer.status_code == 200, (route, answer.text)
            shown[route.path] = answer.content
    return shown


def _missing(id: str) -> str:
    """Of the same kind and length, of nobody."""
    prefix, _, rest = id.rpartition("_")
    return f"{prefix}_{'0' * len(rest)}" if prefix else "z" * len(id)


def _files() -> dict[str, Any]:
    return {
        split: {"images": f"shapes/{split}", "annotations": f"shapes/annotations/instances_{split}.json"}
        for split in ("train", "val")
    }


def _told(answer: Any, ids: dict[str, str]) -> tuple[int, str]:
    text = re.sub(r'"request_id":"\w+"', "", answer.text)
    for id in ids.values():
        text = text.replace(id, "ID").replace(_missing(id), "ID")
    return answer.status_code, text


def _finds(answer: Any, secrets: list[str]) -> list[str]:
    return [secret for secret in secrets if secret in answer.text]
