"""F11: a worker whose own clock is off by hours or days holds, renews and loses its leases like any other."""

import re
import time
from pathlib import Path

import pytest
from sqlalchemy import select

import store
import worker
from store.db.tables import Attempt, Event

HOUR = 3600.0


@pytest.mark.parametrize("offset", [-30 * 24 * HOUR, -HOUR, HOUR, 30 * 24 * HOUR])
@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_leases_and_times_use_the_database_clock(harness, monkeypatch, offset):
    true = time.time
    monkeypatch.setattr(time, "time", lambda: true() + offset)
    monkeypatch.setattr(time, "time_ns", lambda: int((true() + offset) * 1e9))
    lease = harness.start()
    assert lease.expires_at == pytest.approx(true() + 60, abs=30)
    times = [*harness.rows(select(Event.at)), *harness.rows(select(Attempt.started_at))]
    assert times == pytest.approx([true()] * len(times), abs=30)


def test_workers_do_not_read_the_wall_clock():
    read = re.compile(r"time\.time\(|time_ns\(|datetime\.(now|utcnow)")
    files = [file for module in (store, worker) for file in Path(module.__file__).parent.rglob("*.py")]
    found = {file.name for file in files if read.search(file.read_text())}
    for_display = {"job_tracking.py", "mlflow.py"}
    assert found == {"ids.py", "doctor.py", *for_display}, "ids carry a time for their order, `doctor` compares clocks"
