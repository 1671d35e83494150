"""Deliveries of webhooks: written with the job's transition, claimed by one sender, repeated for 24 h, then dead."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import delete, select, text, update
from sqlalchemy.exc import IntegrityError, OperationalError

from frs.events import ErrorInfo
from store.db.database import now, open_database, time_of
from store.db.webhook_tables import Webhook, WebhookDelivery
from store.errors import TooManyWebhooks
from store.jobs import actions, lifecycle
from store.states import DeliveryStatus, EndReason, JobStatus, WebhookEvent, WebhookStatus
from store.webhooks import deliveries, webhooks
from store.webhooks.deliveries import RETRY_SECONDS, Outcome, next_attempt

ALL = tuple(WebhookEvent)
OK, REFUSED = Outcome(204, None, 0.1), Outcome(500, "The receiver answered 500.", 0.2)


@pytest.fixture
def webhook(harness) -> str:
    """The id of a webhook of the owner `admin` that receives every event."""
    return add(harness)


def add(harness, owner="admin", events=ALL) -> str:
    return harness.do(webhooks.add, owner, "https://hooks.example/frs", events, 20).id


def rows(harness) -> list[WebhookDelivery]:
    return list(harness.rows(select(WebhookDelivery).order_by(WebhookDelivery.created_at, WebhookDelivery.id)))


def claim(harness, webhook_id):
    return harness.do(deliveries.claim, webhook_id)


def record(harness, claim, outcome):
    return harness.do(deliveries.record, claim, outcome, lambda: 1.0)


def due(harness) -> list[str]:
    with harness.database.read() as session:
        return [webhook.id for webhook in deliveries.find_due(session, [])]


def let_pass(harness, seconds: float) -> None:
    """Move the times of webhooks and deliveries into the past, as if `seconds` had passed on the database's clock."""
    row = WebhookDelivery
    earlier = {name: getattr(row, name) - seconds for name in ("retry_since", "next_attempt_at", "sending_until")}
    harness.do(lambda session: session.execute(update(row).values(earlier)))
    harness.do(lambda session: session.execute(update(Webhook).values(not_before=Webhook.not_before - seconds)))


def test_each_transition_adds_a_delivery_of_its_event(harness, webhook):
    lease = harness.start()
    error = ErrorInfo(code="diverged", message="The loss became nan.", hint="Lower it.")
    harness.do(lifecycle.finish, lease, JobStatus.FAILED, EndReason.DIVERGED, error)
    harness.do(actions.resume, lease.job_id)
    harness.do(actions.pause, lease.job_id)
    harness.do(actions.cancel, lease.job_id)
    harness.do(lifecycle.finish, harness.start(), JobStatus.SUCCEEDED, EndReason.COMPLETED)
    events = ["job.started", "job.failed", "job.paused", "job.cancelled", "job.started", "job.succeeded"]
    assert [row.event for row in rows(harness)] == events
    body = json.loads(rows(harness)[1].body)
    assert body["type"] == "job.failed"
    assert body["data"]["id"] == lease.job_id
    assert (body["data"]["status"], body["data"]["end_reason"]) == ("failed", "diverged")
    assert body["data"]["error"]["message"] == "The loss became nan."


def test_a_transition_that_is_rolled_back_leaves_no_delivery(harness, webhook):
    job_id = harness.submit()
    with harness.uncommitted(actions.cancel, job_id):
        pass
    assert rows(harness) == []
    harness.do(actions.cancel, job_id)
    assert [row.event for row in rows(harness)] == ["job.cancelled"]


def test_a_webhook_receives_only_its_events_of_its_owners_jobs(harness):
    alices, bobs = add(harness, "alice", [WebhookEvent.CANCELLED]), add(harness, "bob")
    harness.claim(harness.submit(owner="alice"))
    harness.do(actions.cancel, harness.submit(owner="alice"))
    assert [row.webhook_id for row in rows(harness)] == [alices]
    harness.do(actions.cancel, harness.submit(owner="bob"))
    assert {row.webhook_id for row in rows(harness)} == {alices, bobs}


def test_a_delivery_outlives_its_job_and_ends_with_its_webhook(harness, webhook):
    job_id = harness.submit()
    harness.do(actions.cancel, job_id)
    harness.do(actions.delete, job_id)
    assert [row.job_id for row in rows(harness)] == [job_id]
    harness.do(lambda session: session.execute(delete(Webhook)))
    assert rows(harness) == []


def test_a_webhook_cannot_be_deleted_during_a_transition(harness, webhook):
    """Otherwise PostgreSQL would refuse the delivery of a webhook that is gone, and with it the transition."""
    if harness.database.engine.dialect.name != "postgresql":
        pytest.skip("SQLite has one writer at a time")
    with (
        harness.uncommitted(actions.cancel, harness.submit()),
        harness.database.write() as session,
        pytest.raises(OperationalError, match="lock timeout"),
    ):
        session.execute(text("SET LOCAL lock_timeout = 10"))
        session.execute(delete(Webhook))


def test_a_transition_does_not_wait_for_an_outcome_that_is_being_recorded(harness, webhook):
    if harness.database.engine.dialect.name != "postgresql":
        pytest.skip("SQLite has one writer at a time")
    harness.do(actions.cancel, harness.submit())
    job_id = harness.submit()
    with harness.uncommitted(deliveries.record, claim(harness, webhook), REFUSED):
        harness.do(
            lambda session: (session.execute(text("SET LOCAL lock_timeout = 10")), actions.cancel(session, job_id))
        )
    assert [row.event for row in rows(harness)] == ["job.cancelled"] * 2


def test_a_delivery_is_claimed_by_one_of_several_senders(harness, webhook):
    harness.do(actions.cancel, harness.submit())
    databases = [open_database(harness.url) for _ in range(4)]

    def claim_in(database):
        with database.write() as session:
            claimed = deliveries.claim(session, webhook)
            session.commit()
        database.engine.dispose()
        return claimed

    with ThreadPoolExecutor(4) as threads:
        claims = [claimed for claimed in threads.map(claim_in, databases) if claimed]
    assert [claimed.attempt for claimed in claims] == [1]
    assert due(harness) == []


def test_a_claim_of_a_dead_sender_expires_and_its_late_outcome_changes_nothing(harness, webhook):
    harness.do(actions.cancel, harness.submit())
    lost = claim(harness, webhook)
    assert claim(harness, webhook) is None
    let_pass(harness, deliveries.CLAIM_SECONDS + 1)
    again = claim(harness, webhook)
    assert (again.delivery_id, again.attempt) == (lost.delivery_id, 2)
    assert record(harness, lost, OK) is None
    assert rows(harness)[0].status == DeliveryStatus.PENDING
    assert record(harness, again, OK) == DeliveryStatus.DELIVERED
    assert [attempt["number"] for attempt in rows(harness)[0].attempts] == [2]


def test_a_failed_delivery_is_attempted_again_later(harness, webhook):
    harness.do(actions.cancel, harness.submit())
    assert record(harness, claim(harness, webhook), REFUSED) == DeliveryStatus.PENDING
    assert due(harness) == []
    assert harness.rows(select(Webhook))[0].status == WebhookStatus.FAILING
    let_pass(harness, deliveries.FIRST_PAUSE_SECONDS + 5)
    assert due(harness) == [webhook]
    assert record(harness, claim(harness, webhook), OK) == DeliveryStatus.DELIVERED
    assert harness.rows(select(Webhook))[0].status == WebhookStatus.ACTIVE
    log = [(attempt["number"], attempt["status_code"], attempt["error"]) for attempt in rows(harness)[0].attempts]
    assert log == [(1, 500, "The receiver answered 500."), (2, 204, None)]


def test_after_a_failed_attempt_a_webhook_pauses_with_all_its_deliveries(harness, webhook):
    for _ in range(2):
        harness.do(actions.cancel, harness.submit())
    record(harness, claim(harness, webhook), REFUSED)
    assert due(harness) == []
    let_pass(harness, deliveries.FIRST_PAUSE_SECONDS + 1)
    assert due(harness) == [webhook]
    record(harness, claim(harness, webhook), OK)
    assert due(harness) == [webhook], "after a success there is no pause"


def test_a_delivery_is_dead_after_24_hours_until_it_is_redelivered(harness, webhook):
    harness.do(actions.cancel, harness.submit())
    let_pass(harness, RETRY_SECONDS)
    assert record(harness, claim(harness, webhook), REFUSED) == DeliveryStatus.DEAD
    assert due(harness) == []
    assert harness.rows(select(Webhook))[0].status == WebhookStatus.DEAD
    let_pass(harness, 3600)
    harness.do(deliveries.redeliver, rows(harness)[0].id)
    assert due(harness) == [webhook]
    assert record(harness, claim(harness, webhook), REFUSED) == DeliveryStatus.PENDING, "it has 24 h again"
    let_pass(harness, 3600)
    assert record(harness, claim(harness, webhook), OK) == DeliveryStatus.DELIVERED
    assert harness.rows(select(Webhook))[0].status == WebhookStatus.ACTIVE


def test_deliveries_that_waited_for_a_sender_for_days_are_attempted_once(harness, webhook):
    harness.do(actions.cancel, harness.submit())
    let_pass(harness, 5 * RETRY_SECONDS)
    harness.do(deliveries.remove_old)
    assert record(harness, claim(harness, webhook), OK) == DeliveryStatus.DELIVERED


def test_a_redelivery_waits_for_the_attempt_that_runs(harness, webhook):
    harness.do(actions.cancel, harness.submit())
    running = claim(harness, webhook)
    harness.do(deliveries.redeliver, running.delivery_id)
    assert claim(harness, webhook) is None
    assert record(harness, running, OK) == DeliveryStatus.DELIVERED
    harness.do(deliveries.redeliver, running.delivery_id)
    assert claim(harness, webhook).attempt == 2


def test_the_pauses_between_attempts_grow_to_four_hours_and_end_after_24_hours():
    times, at = [0.0], next_attempt(0.0, 0.0, 1.0)
    while at is not None:
        times.append(at)
        at = next_attempt(0.0, at, 1.0)
    assert times[:5] == [0, 10, 30, 90, 270]
    pauses = [later - earlier for earlier, later in zip(times, times[1:], strict=False)]
    assert max(pauses) == 4 * 3600
    assert times[-1] == RETRY_SECONDS
    assert 12 <= len(times) <= 16
    assert next_attempt(0.0, 100.0, 0.75) < next_attempt(0.0, 100.0, 1.25)


def test_the_webhook_that_waits_longest_is_first_and_busy_ones_are_left_out(harness):
    ids = [add(harness, owner) for owner in ("alice", "bob")]
    for owner in ("bob", "alice"):
        harness.do(actions.cancel, harness.submit(owner=owner))
    assert due(harness) == ids[::-1]
    with harness.database.read() as session:
        assert [webhook.owner for webhook in deliveries.find_due(session, [ids[0]])] == ["bob"]


def test_a_claim_has_the_time_of_the_database_and_hides_the_secret(harness, webhook):
    harness.do(actions.cancel, harness.submit())
    before = harness.do(time_of)
    claimed = claim(harness, webhook)
    assert before <= claimed.at <= harness.do(time_of)
    assert claimed.secret.startswith("whsec_")
    assert "whsec_" not in repr(claimed)


def test_an_owner_has_at_most_the_allowed_number_of_webhooks(harness):
    for _ in range(2):
        harness.do(webhooks.add, "alice", "https://hooks.example", ALL, 2)
    with pytest.raises(TooManyWebhooks):
        harness.do(webhooks.add, "alice", "https://hooks.example", ALL, 2)
    harness.do(webhooks.add, "bob", "https://hooks.example", ALL, 2)


def test_old_deliveries_are_removed_by_age_and_number(harness, webhook, monkeypatch):
    for _ in range(4):
        harness.do(actions.cancel, harness.submit())
    ids = [row.id for row in rows(harness)]
    record(harness, claim(harness, webhook), OK)
    ages = {"created_at": now() - deliveries.KEEP_SECONDS - 1}
    of_first_two = update(WebhookDelivery).where(WebhookDelivery.id.in_(ids[:2]))
    harness.do(lambda session: session.execute(of_first_two.values(ages)))
    harness.do(deliveries.remove_old)
    assert [row.id for row in rows(harness)] == ids[1:], "a pending delivery does not get too old"
    monkeypatch.setattr(deliveries, "KEEP_DELIVERIES", 2)
    harness.do(deliveries.remove_old)
    assert [row.id for row in rows(harness)] == ids[2:]


def test_an_error_of_the_database_does_not_contain_a_secret(harness):
    """The log has such errors, with their statements."""
    webhook_id = add(harness)
    secret = harness.rows(select(Webhook.secret))[0]
    duplicate = Webhook(id=webhook_id, owner="admin", url="https://hooks.example", events=[], secret=secret)
    with pytest.raises(IntegrityError) as error:
        harness.do(lambda session: session.add(duplicate))
    assert "INSERT INTO webhooks" in str(error.value)
    assert secret not in str(error.value)
