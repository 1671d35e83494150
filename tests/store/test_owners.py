from functools import partial

import pytest
from sqlalchemy import select
from test_races import run_concurrently

from api.http.auth import Caller
from api.http.errors import ApiError
from api.jobs import quota
from frs.spec import JobSpec
from store.db import api_keys, queries
from store.db.tables import ApiKey, Dataset, Job
from store.errors import LastAdminKey
from store.jobs import lifecycle
from store.settings import Settings
from store.states import Scope

SPEC = JobSpec.model_validate({"kind": "train", "dataset": "shapes", "student": {"architecture": "gfl"}})
FILES = dict.fromkeys(("train_images", "train_annotations", "val_images", "val_annotations"), "x")


def add_dataset(harness, id, name, owner, created_at):
    harness.do(lambda session: session.add(Dataset(id=id, name=name, owner=owner, created_at=created_at, **FILES)))


def find_id(harness, *arguments, **keywords):
    with harness.database.read() as session:
        row = queries.find_dataset(session, *arguments, **keywords)
    return row and row.id


def test_a_name_refers_to_the_owners_own_data_set(harness):
    add_dataset(harness, "ds_old", "set", "alice", 1.0)
    add_dataset(harness, "ds_new", "set", "bob", 2.0)
    assert find_id(harness, "set", "alice") == "ds_old"
    assert find_id(harness, "set", "bob") == find_id(harness, "ds_new", "bob") == "ds_new"
    assert find_id(harness, "set", "carol") is None
    assert find_id(harness, "ds_old", "bob") is None


def test_with_all_owners_a_name_refers_to_the_own_data_set_first_then_the_oldest(harness):
    add_dataset(harness, "ds_old", "set", "alice", 1.0)
    add_dataset(harness, "ds_new", "set", "bob", 2.0)
    assert find_id(harness, "set", "bob", all_owners=True) == "ds_new"
    assert find_id(harness, "set", "carol", all_owners=True) == "ds_old"
    add_dataset(harness, "ds_odd", "ds_old", "bob", 3.0)
    assert find_id(harness, "ds_old", "bob", all_owners=True) == "ds_old", "an id takes precedence over a name"
    assert find_id(harness, "ds_old", "bob") == "ds_odd"


def test_of_two_concurrently_revoked_admin_keys_one_remains(harness):
    for number in range(10):
        harness.do(api_keys.add, "one", f"one {number}")
        harness.do(api_keys.add, "other", f"other {number}")
        ids = [key.id for key in harness.rows(select(ApiKey).where(ApiKey.revoked_at.is_(None)))]
        results = run_concurrently(*[partial(harness.do, revoke, id) for id in ids])
        assert [type(result) for result in results if result is not None] == [LastAdminKey]


def test_concurrent_submissions_do_not_exceed_the_quota(harness):
    caller = Caller("key", "alice", frozenset({Scope.SUBMIT}), max_active_jobs=3)
    results = run_concurrently(*[partial(harness.do, submit, Settings(), caller)] * 10)
    assert sum(isinstance(result, Job) for result in results) == 3
    assert {result.code for result in results if isinstance(result, ApiError)} == {"quota_exceeded"}


def test_an_expired_admin_key_does_not_count_as_remaining(harness):
    harness.do(api_keys.add, "gone", "token", expires_at=1.0)
    last = harness.do(api_keys.add, "last", "other token")
    with pytest.raises(LastAdminKey):
        harness.do(revoke, last.id)


def revoke(session, key_id):
    api_keys.revoke(session, session.get_one(ApiKey, key_id))


def submit(session, settings, caller):
    quota.check(session, settings, caller, 1)
    return lifecycle.add(session, SPEC, dataset_id="ds_shapes", owner=caller.owner)
