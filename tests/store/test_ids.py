import re
from unittest.mock import Mock

from store.db import ids
from store.db.ids import new_id


def test_ids_have_the_documented_form_and_sort_by_time(monkeypatch):
    milliseconds = iter((1_800_000_000_000, 1_800_000_000_001))
    monkeypatch.setattr(ids, "time", Mock(time_ns=lambda: next(milliseconds) * 1_000_000))
    first, second = new_id("job"), new_id("job")
    assert re.fullmatch(r"job_[0-9a-z]{26}", first)
    assert first < second


def test_ids_of_one_millisecond_differ():
    assert len({new_id("ckpt") for _ in range(10_000)}) == 10_000
