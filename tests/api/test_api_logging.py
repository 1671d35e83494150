"""The log of the API process."""

import logging

import pytest

from api import logs
from store.db import schema


def test_a_readiness_check_writes_no_log_line(service, monkeypatch, caplog):
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        logs.configure()
        root.addHandler(caplog.handler)
        schema.check(service.client.app.state.context.database)
    finally:
        root.handlers[:], root.level = handlers, level
    assert [record.name for record in caplog.records if record.name.startswith("alembic")] == []


def request_lines(caplog):
    return [record.__dict__ for record in caplog.records if record.message == "request"]


def test_a_request_is_logged_with_its_key_owner_and_address(service, caplog):
    with caplog.at_level(logging.INFO, "api"):
        service.client.get("/jobs")
    [line] = request_lines(caplog)
    key = service.get("/api-keys")["data"][0]
    assert (line["key_id"], line["owner"], line["address"]) == (key["id"], "admin", "testclient")


@pytest.mark.parametrize(
    ("token", "prefix"), [(f"frs_{'k' * 43}", "frs_kkkk"), ("hunter2", None), ("frs_hunter2", None), ("x" * 60, None)]
)
def test_a_refused_request_is_logged_with_the_prefix_of_its_token_at_most(service, caplog, token, prefix):
    with caplog.at_level(logging.INFO, "api"):
        service.client.get("/jobs", headers={"Authorization": f"Bearer {token}"})
    [line] = request_lines(caplog)
    assert (line["status"], line["address"], line.get("key_prefix")) == (401, "testclient", prefix)
    assert token not in str(line)
