from functools import partial

import pytest
from sqlalchemy import select
from test_races import at_once

from api.http.auth import Caller
from api.http.errors import ApiError
from api.jobs import quota
from frs.spec import JobSpec
from store.db import api_keys, queries
from store.db.api_keys import Scope
from store.db.tables import ApiKey, Dataset, Job
from store.errors import LastAdminKey
from store.jobs import lifecycle
from store.settings import Settings

SPEC = JobSpec.model_validate({"kind": "train", "dataset": "shapes", "student": {"architecture": "gfl"}})
FILES = dict.fromkeys(("train_images", "train_annotations", "val_images", "val_annotations"), "x")


def add_dataset(harness, id, name, owner, created_at):
    harness.do(lambda session: session.add(Dataset(id=id, name=name, owner=owner, created_at=created_at, **FILES)))


def found(harness, *arguments, **named):
    with harness.database.read() as session:
        row = queries.find_dataset(session, *arguments, **named)
    return row and row.id


def test_a_name_means_the_owners_own(harness):
    add_dataset(harness, "ds_old", "set", "alice", 1.0)
    add_dataset(harness, "ds_new", "set", "bob", 2.0)
    assert found(harness, "set", "alice") == "ds_old"
    assert found(harness, "set", "bob") == found(harness, "ds_new", "bob") == "ds_new"
    assert found(harness, "set", "carol") is None
    assert found(harness, "ds_old", "bob") is None


def test_who_may_see_all_finds_the_own_name_first_then_the_oldest(harness):
    add_dataset(harness, "ds_old", "set", "alice", 1.0)
    add_dataset(harness, "ds_new", "set", "bob", 2.0)
    assert found(harness, "set", "bob", everybodys=True) == "ds_new"
    assert found(harness, "set", "carol", everybodys=True) == "ds_old"
    add_dataset(harness, "ds_odd", "ds_old", "bob", 3.0)
    assert found(harness, "ds_old", "bob", everybodys=True) == "ds_old", "an id is nobody's name"
    assert found(harness, "ds_old", "bob") == "ds_odd"


def test_of_two_admins_who_revoke_each_other_one_stays(harness):
    for number in range(10):
        harness.do(api_keys.add, "one", f"one {number}")
        harness.do(api_keys.add, "other", f"other {number}")
        ids = [key.id for key in harness.rows(select(ApiKey).where(ApiKey.revoked_at.is_(None)))]
        results = at_once(*[partial(harness.do, revoke, id) for id in ids])
        assert [type(result) for result in results if result is not None] == [LastAdminKey]


def test_of_many_submissions_at_once_no_more_than_the_quota_come_in(harness):
    caller = Caller("key", "alice", Scope.SUBMIT, max_active_jobs=3)
    results = at_once(*[partial(harness.do, submit, Settings(), caller)] * 10)
    assert sum(isinstance(result, Job) for result in results) == 3
    assert {result.code for result in results if isinstance(result, ApiError)} == {"quota_exceeded"}


def test_a_key_that_expired_is_no_admin_that_stays(harness):
    harness.do(api_keys.add, "gone", "token", expires_at=1.0)
    last = harness.do(api_keys.add, "last", "other token")
    with pytest.raises(LastAdminKey):
        harness.do(revoke, last.id)


def revoke(session, key_id):
    api_keys.revoke(session, session.get_one(ApiKey, key_id))


def submit(session, settings, caller):
    quota.check(session, settings, caller, 1)
    return lifecycle.add(session, SPEC, dataset_id="ds_shapes", owner=caller.owner)
