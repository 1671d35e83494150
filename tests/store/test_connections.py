import json
import math
import time

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import OperationalError, StatementError
from store_house import House

from store.db.database import now, open_database
from store.db.tables import Dataset, Job


def test_the_database_s_clock_tells_seconds_since_1970(house):
    [at] = house.rows(select(now()))
    assert at == pytest.approx(time.time(), abs=5)
    time.sleep(0.01)
    [later] = house.rows(select(now()))
    assert 0 < later - at < 5


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_sqlite_is_durable_and_checks_references(house):
    with house.database.read() as session:
        pragmas = {
            name: session.scalar(text(f"PRAGMA {name}")) for name in ("journal_mode", "synchronous", "foreign_keys")
        }
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}


def test_what_is_no_json_is_refused(house):
    with pytest.raises((StatementError, ValueError)):
        house.do(lambda session: setattr(session.get(Dataset, "ds_shapes"), "check_result", {"share": math.nan}))


def test_a_document_comes_back_as_it_was(house):
    report = {"text": "\u00fc\u2028\U0001f600", "none": None, "numbers": [1, 0.1, 1e300]}
    house.do(lambda session: setattr(session.get(Dataset, "ds_shapes"), "check_result", report))
    [stored] = house.rows(select(Dataset.check_result))
    assert json.dumps(stored) == json.dumps(report)


def test_what_was_not_committed_is_gone(house):
    with house.database.write() as session:
        session.get(Dataset, "ds_shapes").name = "other"
        session.flush()
    assert house.rows(select(Dataset.name)) == ["shapes"]


def test_a_commit_that_fails_leaves_nothing_open(house):
    dialect = house.database.engine.dialect
    commit = dialect.do_commit

    def full(_):
        dialect.do_commit = commit
        raise dialect.dbapi.OperationalError("database or disk is full")

    dialect.do_commit = full
    with pytest.raises(OperationalError):
        house.submit()
    kept = [House(house.url, open_database(house.url)).submit(), house.submit()]
    assert sorted(house.rows(select(Job.id))) == sorted(kept)
