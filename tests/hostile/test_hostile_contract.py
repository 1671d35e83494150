"""The OpenAPI document against the service: schemathesis generates requests and checks every response."""

import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import contract_harness as harness
import httpx2
import pytest
import requests
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi import checks
from starlette.routing import compile_path

from api.app import create_app
from api.http.auth_middleware import PUBLIC_PATHS
from store.settings import Settings

CASES = [
    1_000,
    pytest.param(20_000, marks=[pytest.mark.slow, pytest.mark.timeout(7_200)]),
]
METHODS = {"GET", "POST", "PUT", "PATCH", "DELETE"}
CONFORMS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]
REFUSES = [*CONFORMS, checks.negative_data_rejection]
SPARE = 1.1
"""Factor on the number of cases: hypothesis generates fewer if there are fewer different ones."""
Draw = tuple[Case, int]


@pytest.fixture(scope="module")
def populated(template, tmp_path_factory):
    """A data folder with objects of every kind, their ids, and the OpenAPI document."""
    settings = Settings(data=shutil.copytree(template, tmp_path_factory.mktemp("contract") / "data"))
    fixtures = harness.api_fixtures()
    with fixtures.serve_app(create_app(settings), settings) as service:
        return settings.data, harness.populate(service), service.get("/openapi.json")


@pytest.fixture
def attacked(populated, serve, monkeypatch) -> Iterator["ContractTarget"]:
    """An API process on its own copy of the populated data folder."""
    data, ids, document = populated
    monkeypatch.setenv("FRS_AUTH_FAILURES_PER_MINUTE", "1000000")
    monkeypatch.setenv("FRS_MAX_ACTIVE_JOBS", "1000000")
    with serve(data) as live, requests.Session() as session:
        yield ContractTarget(live, session, harness.operations(document), ids)


@pytest.mark.parametrize("cases", CASES)
def test_every_response_conforms_to_the_openapi_document(attacked, cases):
    """No 5xx, no undocumented status, type, header or field; and requests that violate the document are refused."""
    weights = {id(operation): _weight(operation) for operation in attacked.operations}
    last = "POST /clean"  # it removes the ended jobs that other operations need
    for operation in sorted(attacked.operations, key=lambda operation: harness.label(operation) == last):
        share = int(SPARE * cases * weights[id(operation)] / sum(weights.values())) + 1
        attacked.attack(operation, GenerationMode.POSITIVE, CONFORMS, share * 2 // 3)
        if operation.body or list(operation.iter_parameters()):
            attacked.attack(operation, GenerationMode.NEGATIVE, REFUSES, share // 3)
    sent = sum(attacked.sent.values())
    print(f"\n{sent} requests to {len(attacked.sent)} operations; answers: {dict(sorted(attacked.statuses.items()))}")
    assert not attacked.failures, "\n\n".join(attacked.failures[:20])
    assert sent >= cases
    assert set(attacked.sent) == {harness.label(operation) for operation in attacked.operations}
    assert attacked.never_succeeded() == []


def test_every_operation_refuses_missing_and_wrong_keys(attacked):
    for operation in attacked.operations:
        if operation.path not in PUBLIC_PATHS:
            attacked.attack(
                operation, GenerationMode.POSITIVE, [_check_refused_without_key], 4, keys=(None, "frs_wrong", "")
            )
    assert not attacked.failures, "\n\n".join(attacked.failures[:20])
    assert set(attacked.statuses) == {401}
    assert sum(attacked.sent.values()) >= 3 * len(attacked.operations)


def test_an_undocumented_method_is_refused_with_the_allowed_methods(attacked):
    documented: dict[str, set[str]] = {}
    for operation in attacked.operations:
        documented.setdefault(attacked.filled(operation.path), set()).add(operation.method.upper())
    assert documented
    for path, methods in documented.items():
        for method in METHODS - methods - attacked.methods_of_templates(path):
            response = attacked.request(method, path)
            assert response.status_code == 405, (method, path)
            assert set(response.headers["allow"].split(", ")) - {"HEAD"} >= methods, (method, path)
            assert response.headers["content-type"] == "application/problem+json"


@dataclass
class ContractTarget:
    live: Any
    session: requests.Session
    operations: list[APIOperation]
    ids: harness.Ids
    sent: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    succeeded: set[str] = field(default_factory=set)
    failures: list[str] = field(default_factory=list)

    def attack(
        self, operation: APIOperation, mode: GenerationMode, expected: list[Any], max_cases: int, keys: Any = ...
    ) -> None:
        """Send at most `max_cases` different generated requests, the same ones in every run."""
        given_ids = {name: self.ids[name][0] for name in harness.parameters(operation) if name in self.ids}
        negative = mode is GenerationMode.NEGATIVE
        narrow = {"path_parameters": given_ids} if negative and given_ids and _has_other_parameters(operation) else {}

        @settings(
            max_examples=max(1, max_cases),
            derandomize=True,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(operation.as_strategy(generation_mode=mode, **narrow), st.integers(0, 2**16))
        def send(case: Case, number: int) -> None:
            if not negative:
                self._insert_valid_values(case, number)
            for key in (self.live.key,) if keys is ... else keys:
                self._send(case, expected, key)

        with suppress(Unsatisfiable):  # the operation has no invalid parameters
            send()

    def request(self, method: str, path: str) -> httpx2.Response:
        return httpx2.request(method, f"{self.live.url}{path}", headers=self.live.headers)

    def filled(self, path: str) -> str:
        for name, ids in self.ids.items():
            path = path.replace(f"{{{name}}}", ids[0])
        return path

    def methods_of_templates(self, path: str) -> set[str]:
        """Return the methods of operations with a path template that matches `path`."""
        templates = (operation for operation in self.operations if "{" in operation.path)
        return {operation.method.upper() for operation in templates if compile_path(operation.path)[0].match(path)}

    def never_succeeded(self) -> list[str]:
        """Return the operations without a 2xx, among GET, DELETE and those with a known valid body."""
        return sorted(
            harness.label(operation)
            for operation in self.operations
            if harness.label(operation) not in self.succeeded
            and set(harness.parameters(operation)) <= self.ids.keys()
            and (operation.method.lower() in ("get", "delete") or harness.valid_body(operation))
        )

    def _insert_valid_values(self, case: Case, number: int) -> None:
        """Replace ids by existing ones in 3 of 4 cases, and the body by an almost valid one in 2 of 3 cases."""
        if number % 4:
            chosen = 0 if number % 4 == 1 else number // 4  # the first ids of each kind belong together
            for name in self.ids.keys() & (case.path_parameters or {}).keys():
                case.path_parameters[name] = self.ids[name][chosen % len(self.ids[name])]
            for name in self.ids.keys() & (case.query or {}).keys():
                case.query[name] = self.ids[name][chosen % len(self.ids[name])]
        body = harness.valid_body(case.operation)
        if body and isinstance(case.body, dict) and number % 3:
            fields = sorted(case.body)
            if fields and number % 3 == 1:
                chosen = fields[number // 12 % len(fields)]
                body[chosen] = case.body[chosen]
            case.body = body

    def _send(self, case: Case, expected: list[Any], key: str | None) -> None:
        label = harness.label(case.operation)
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        response = case.call(base_url=self.live.url, session=self.session, headers=headers)
        self.sent[label] += 1
        self.statuses[response.status_code] += 1
        if 200 <= response.status_code < 300:
            self.succeeded.add(label)
        try:
            case.validate_response(response, checks=expected, headers=headers)
        except FailureGroup as group:
            messages = "\n".join(f"{failure.title}: {failure.message}" for failure in group.exceptions)
            self.failures.append(f"{label}\n{messages}\n{case.as_curl_command()[:600]}\n{response.text[:600]}")


def _check_refused_without_key(_: Any, response: Any, case: Case) -> None:
    if response.status_code != 401 or response.json()["code"] not in ("key_missing", "unknown_key"):
        raise Failure(
            operation=harness.label(case.operation), title="accepted without a valid key", message=response.text
        )


def _has_other_parameters(operation: APIOperation) -> bool:
    """Return whether the operation has parameters other than path parameters."""
    return bool(operation.body) or bool(operation.query) or bool(operation.headers)


def _weight(operation: APIOperation) -> int:
    if operation.body:
        return 5
    return 2 if _has_other_parameters(operation) else 1
