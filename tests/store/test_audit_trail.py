"""The audit trail of the store: its rows belong to the transaction of the change and never change."""

import pytest
from sqlalchemy import delete, select, text, update
from sqlalchemy.exc import DBAPIError

from store.db.audit import Actor, record
from store.db.tables import AuditEntry, Event
from store.jobs import actions

ALICE = Actor("alice", "key_1", "192.0.2.7", "req_1")


@pytest.mark.parametrize("change", [update(AuditEntry).values(owner="bob"), delete(AuditEntry)])
def test_the_database_refuses_to_change_or_delete_an_entry(harness, change):
    harness.do(record, ALICE, "job.cancel", ["job_1"])
    with (
        harness.owned() as database,
        database.write() as session,
        pytest.raises(DBAPIError, match="never changed or deleted"),
    ):
        session.execute(change)
    assert [entry.owner for entry in harness.rows(select(AuditEntry))] == ["alice"]


def test_postgresql_refuses_to_truncate_the_audit_trail(harness):
    if harness.database.engine.dialect.name != "postgresql":
        pytest.skip("SQLite has no TRUNCATE")
    harness.do(record, ALICE, "job.cancel", ["job_1"])
    with (
        harness.owned() as database,
        database.write() as session,
        pytest.raises(DBAPIError, match="never changed or deleted"),
    ):
        session.execute(text("TRUNCATE audit"))
    assert len(harness.rows(select(AuditEntry))) == 1


def test_a_change_that_is_rolled_back_leaves_no_entry(harness):
    job_id = harness.submit()
    with harness.uncommitted(actions.cancel, job_id, ALICE):
        pass
    assert harness.rows(select(AuditEntry)) == []
    assert harness.history(job_id) == ["queued"]


def test_a_repeated_cancel_adds_no_second_entry(harness):
    lease = harness.start()
    for _ in range(2):
        harness.do(actions.cancel, lease.job_id, ALICE)
    assert [(entry.action, entry.target) for entry in harness.rows(select(AuditEntry))] == [
        ("job.cancel", lease.job_id)
    ]


def test_the_event_of_an_action_names_who_requested_it(harness):
    running, queued = harness.start().job_id, harness.submit()
    for job_id in (running, queued):
        harness.do(actions.cancel, job_id, ALICE)
        newest = select(Event).where(Event.job_id == job_id).order_by(Event.seq.desc())
        assert harness.rows(newest)[0].data["by"] == "alice"


def test_the_lease_carries_the_id_of_the_request_that_submitted_the_job(harness):
    lease = harness.claim(harness.submit(actor=ALICE))
    assert lease.request_id == "req_1"
    assert lease.log_fields() == {"job_id": lease.job_id, "attempt": 1, "request_id": "req_1"}


def test_a_job_submitted_by_an_earlier_version_has_no_request_id(harness):
    assert harness.start().log_fields().keys() == {"job_id", "attempt"}
