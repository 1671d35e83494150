"""The log of the API process."""

import logging

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
