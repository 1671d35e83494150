"""A lost answer never makes a second job: each submit has one Idempotency-Key, also when it is repeated."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from scripted_server import BREAK, answer, serve

from frs_client import ApiError, NoAnswer, ServiceError

JOB = answer({"id": "job_1"}, 201)
REFUSED = answer({"code": "invalid_request", "detail": "name: invalid", "hint": "", "errors": []}, 422)
SPEC = {"dataset": "shapes"}


@pytest.fixture
def submit(connect: Any) -> Any:
    """Return a function that submits a job."""
    return lambda server, spec=SPEC, key="frs_key": connect(server.url, key).post("/jobs", spec)


def test_a_broken_connection_is_followed_by_one_request_under_the_same_key(submit: Any) -> None:
    with serve(BREAK, JOB) as server:
        assert submit(server) == {"id": "job_1"}
    first, second = server.header("idempotency-key")
    assert first and first == second


@pytest.mark.parametrize("path", ["/sweeps", "/jobs/job_1/exports", "/webhooks", "/api-keys", "/api-keys/key_1/rotate"])
def test_every_request_that_creates_something_without_a_name_of_its_own_has_a_key(connect: Any, path: str) -> None:
    with serve(BREAK, JOB) as server:
        connect(server.url, "frs_key").post(path, {})
    first, second = server.header("idempotency-key")
    assert first and first == second


def test_the_next_equal_command_continues_a_command_without_an_answer(submit: Any, home: Path) -> None:
    with serve(BREAK, BREAK, JOB) as server:
        with pytest.raises(NoAnswer):
            submit(server)
        submit(server)
    assert len(server.requests) == 3 and len(set(server.header("idempotency-key"))) == 1
    assert not list((home / "frs" / "unanswered").iterdir())


@pytest.mark.parametrize("lost", [(502, {}, b""), (504, {"Content-Type": "text/html"}, b"<html>")])
def test_an_error_of_a_gateway_is_no_answer(submit: Any, lost: Any) -> None:
    with serve(lost, JOB) as server:
        with pytest.raises(NoAnswer):
            submit(server)
        submit(server)
    assert len(set(server.header("idempotency-key"))) == 1


def test_the_next_equal_command_continues_one_that_met_a_server_error(submit: Any) -> None:
    unavailable = answer({"code": "database_unavailable", "detail": "No.", "hint": "", "errors": []}, 503)
    with serve(unavailable, JOB) as server:
        with pytest.raises(ApiError, match="database_unavailable"):
            submit(server)
        submit(server)
    assert len(set(server.header("idempotency-key"))) == 1, "the transaction may have been committed"


def test_an_answered_command_is_not_continued(submit: Any) -> None:
    for replies in ([JOB], [REFUSED]):
        with serve(*replies) as server:
            for _ in range(2):
                with suppress(ServiceError):
                    submit(server)
        assert len(set(server.header("idempotency-key"))) == 2, "the user may want two equal jobs"


def test_other_requests_have_keys_of_their_own(submit: Any) -> None:
    with serve(BREAK) as server:
        for spec, key in [(SPEC, "frs_key"), (SPEC | {"name": "other"}, "frs_key"), (SPEC, "frs_another")]:
            with pytest.raises(NoAnswer):
                submit(server, spec, key)
    assert len(set(server.header("idempotency-key"))) == 3


def test_a_home_that_cannot_be_written_only_loses_the_key(
    submit: Any, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.mkdir()
    (home / "file").write_text("")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "file"))
    with serve(BREAK) as server, pytest.raises(NoAnswer):
        submit(server)


@pytest.mark.parametrize("path", ["/clean", "/datasets", "/jobs/job_1/retry"])
def test_a_request_that_the_service_would_carry_out_twice_is_sent_once(connect: Any, path: str) -> None:
    with serve(BREAK) as server, pytest.raises(NoAnswer, match="broke before"):
        connect(server.url, "frs_key").post(path, {})
    assert len(server.requests) == 1


def test_nothing_of_the_request_is_kept_but_its_key(submit: Any, home: Path) -> None:
    with serve(BREAK) as server, pytest.raises(NoAnswer):
        submit(server, {"name": "private"}, "frs_secret")
    [file] = (home / "frs" / "unanswered").iterdir()
    assert file.read_text() == server.header("idempotency-key")[0]
    assert "private" not in json.dumps([str(file), file.read_text()])
