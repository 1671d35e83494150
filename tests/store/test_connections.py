import json
import math
import time

import pytest
from database_harness import DatabaseHarness
from sqlalchemy import select, text
from sqlalchemy.exc import OperationalError, StatementError
from waiting import until

from store.db.database import now, open_database
from store.db.tables import Dataset, Job


def test_the_database_clock_returns_seconds_since_1970(harness):
    [at] = harness.rows(select(now()))
    assert at == pytest.approx(time.time(), abs=5)
    until(lambda: at < harness.rows(select(now()))[0] < at + 5)


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_sqlite_is_durable_and_enforces_foreign_keys(harness):
    with harness.database.read() as session:
        pragmas = {
            name: session.scalar(text(f"PRAGMA {name}")) for name in ("journal_mode", "synchronous", "foreign_keys")
        }
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}


def test_nan_in_a_document_is_rejected(harness):
    with pytest.raises((StatementError, ValueError)):
        harness.do(lambda session: setattr(session.get(Dataset, "ds_shapes"), "check_result", {"share": math.nan}))


def test_a_document_is_read_as_written(harness):
    document = {"text": "\u00fc\u2028\U0001f600", "none": None, "numbers": [1, 0.1, 1e300]}
    harness.do(lambda session: setattr(session.get(Dataset, "ds_shapes"), "check_result", document))
    [stored] = harness.rows(select(Dataset.check_result))
    assert json.dumps(stored) == json.dumps(document)


def test_uncommitted_changes_are_rolled_back(harness):
    with harness.database.write() as session:
        session.get(Dataset, "ds_shapes").name = "other"
        session.flush()
    assert harness.rows(select(Dataset.name)) == ["shapes"]


def test_a_failed_commit_leaves_no_open_transaction(harness):
    dialect = harness.database.engine.dialect
    commit = dialect.do_commit

    def fail_once(_):
        dialect.do_commit = commit
        raise dialect.dbapi.OperationalError("database or disk is full")

    dialect.do_commit = fail_once
    with pytest.raises(OperationalError):
        harness.submit()
    job_ids = [DatabaseHarness(harness.url, open_database(harness.url)).submit(), harness.submit()]
    assert sorted(harness.rows(select(Job.id))) == sorted(job_ids)
