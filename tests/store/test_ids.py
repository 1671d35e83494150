import re
import time

from store.db.ids import new_id


def test_ids_have_the_documented_form_and_sort_by_time():
    first = new_id("job")
    time.sleep(0.002)
    second = new_id("job")
    assert re.fullmatch(r"job_[0-9a-z]{26}", first)
    assert first < second


def test_ids_of_one_millisecond_differ():
    assert len({new_id("ckpt") for _ in range(10_000)}) == 10_000
