"""Webhooks and API keys of requests with an `Idempotency-Key`; jobs and sweeps have theirs in their own files."""

from functools import partial

import pytest
from sqlalchemy import func, select
from test_races import run_concurrently

from frs.spec_model import Spec
from store.db import api_keys
from store.db.idempotency import Idempotency
from store.db.tables import ApiKey
from store.db.webhook_tables import Webhook
from store.errors import AlreadyCreated, IdempotencyKeyReused
from store.states import WebhookEvent
from store.webhooks import webhooks

K = Idempotency("k", "digest")


def add_webhook(session, owner="alice", idempotency=K, maximum=20):
    return webhooks.add(session, owner, "https://hooks.example", [WebhookEvent.FAILED], maximum, idempotency)


def add_key(session, owner="alice", idempotency=K):
    return api_keys.add(session, "ci", api_keys.new_token(), owner=owner, idempotency=idempotency)


@pytest.fixture(params=[(add_webhook, Webhook), (add_key, ApiKey)], ids=["webhook", "key"])
def add(request, harness):
    """A function that adds a row with an idempotency key, and one that counts the rows."""
    function, table = request.param
    return partial(harness.do, function), lambda: harness.rows(select(func.count()).select_from(table))[0]


def test_a_repeated_request_creates_nothing_and_names_what_the_first_one_created(add):
    add, count = add
    first = add()
    with pytest.raises(AlreadyCreated, match=first.id):
        add()
    assert count() == 1


def test_another_request_under_the_same_key_is_refused(add):
    add, count = add
    add()
    with pytest.raises(IdempotencyKeyReused):
        add(idempotency=Idempotency("k", "another"))
    assert count() == 1


def test_owners_have_keys_of_their_own_and_requests_without_a_key_are_never_repeated_ones(add):
    add, count = add
    for owner in ("alice", "bob"):
        add(owner=owner)
    for _ in range(2):
        add(idempotency=None)
    assert count() == 4


def test_of_concurrent_requests_under_one_key_one_creates(add):
    add, count = add
    results = run_concurrently(*[add] * 12)
    [created] = [result for result in results if not isinstance(result, Exception)]
    refused = [result for result in results if isinstance(result, AlreadyCreated)]
    assert len(refused) == 11 and all(created.id in str(error) for error in refused)
    assert count() == 1


def test_a_request_that_failed_does_not_use_its_key(add, harness):
    add, count = add
    with harness.database.write() as session:
        add.args[0](session)
    add()
    assert count() == 1


def test_a_repeated_request_of_an_owner_at_the_limit_is_recognised(harness):
    first = harness.do(add_webhook, maximum=1)
    with pytest.raises(AlreadyCreated, match=first.id):
        harness.do(add_webhook, maximum=1)


def test_of_concurrent_rotations_under_one_key_one_creates_a_key(harness):
    old = harness.do(add_key, idempotency=None).id

    def rotate(session):
        return api_keys.rotate(session, session.get_one(ApiKey, old), api_keys.new_token(), 3600.0, K)

    results = run_concurrently(*[partial(harness.do, rotate)] * 8)
    assert len([result for result in results if isinstance(result, AlreadyCreated)]) == 7
    assert harness.rows(select(func.count()).select_from(ApiKey)) == [2]


def test_equivalent_requests_have_one_digest_and_other_paths_another():
    class Request(Spec):
        grace_hours: float = 24.0

    assert Idempotency.of("k", Request()) == Idempotency.of("k", Request(grace_hours=24))
    assert Idempotency.of("k", Request(), "key_1") != Idempotency.of("k", Request(), "key_2")
    assert Idempotency.of(None, Request()) is None


def test_a_request_is_the_same_in_a_version_with_other_defaults_and_more_fields():
    class Request(Spec):
        name: str
        ratio: int = 30

    class Later(Request):
        ratio: int = 100
        added: bool = False

    assert Idempotency.of("k", Request(name="a")) == Idempotency.of("k", Later(name="a"))
    assert Idempotency.of("k", Request(name="a")) != Idempotency.of("k", Later(name="a", added=True))
