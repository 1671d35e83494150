"""The queue in front of a tracker: order, retries, losses and bounded waits."""

import io
import threading
from collections.abc import Callable, Iterator

import pytest
from scripted_tracker import END, RUN, ScriptedTracker, unavailable
from waiting import until

from frs.errors import FrsError
from worker.tracking import forwarder as module
from worker.tracking.forwarder import Forwarder, ResultFile
from worker.tracking.tracker import Point, TrackerRefused, TrackerUnavailable


def without_delay() -> Iterator[float]:
    while True:
        yield 0.0


@pytest.fixture
def forward(gate: threading.Event) -> Iterator[Callable[[ScriptedTracker], Forwarder]]:
    """Return a function that starts a forwarder, which ends with the test."""
    forwarders = []

    def start(tracker: ScriptedTracker) -> Forwarder:
        forwarders.append(Forwarder(tracker, RUN, without_delay))
        return forwarders[-1]

    yield start
    gate.set()
    for forwarder in forwarders:
        forwarder.close()


def point(step: int) -> Point:
    return Point(step, 0.0, {"train/loss": 1.0})


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    gate = threading.Event()
    yield gate
    gate.set()


def test_items_arrive_in_order(forward):
    tracker = ScriptedTracker()
    forwarder = forward(tracker)
    for item in (point(1), point(2), ResultFile("report.json", 2, lambda: io.BytesIO(b"{}")), point(3), END):
        forwarder.add(item)
    assert forwarder.wait(20)
    forwarder.close()
    assert tracker.calls[0] == ("start", "job_1")
    assert tracker.steps == [1, 2, 3]
    assert tracker.calls[-3:] == [("file", "report.json", b"{}"), ("points", 3), ("end", "succeeded")]
    assert forwarder.take_warnings() == []


def test_calls_that_are_not_answered_are_repeated_and_nothing_is_lost(forward):
    tracker = ScriptedTracker(unavailable("start", "points", "file", "end", times=3))
    forwarder = forward(tracker)
    for step in range(500):
        forwarder.add(point(step))
    forwarder.add(ResultFile("report.json", 2, lambda: io.BytesIO(b"{}")))
    forwarder.add(END)
    assert forwarder.wait(20)
    assert tracker.steps == list(range(500)) and tracker.calls[-1] == ("end", "succeeded")
    assert forwarder.take_warnings() == []


@pytest.mark.parametrize("error", [TrackerUnavailable("x"), RuntimeError("x"), KeyError("x"), RecursionError()])
def test_any_error_of_a_tracker_is_repeated(error, forward):
    errors = [error]

    def fail(call, number):
        if errors:
            raise errors.pop()

    forwarder = forward(ScriptedTracker(fail))
    forwarder.add(point(1))
    assert forwarder.wait(20)


def test_when_too_much_waits_the_oldest_is_dropped_with_one_warning(monkeypatch, gate, forward):
    monkeypatch.setattr(module, "MAX_QUEUED", 5)
    tracker = ScriptedTracker(lambda call, number: gate.wait() if call == "start" else None)
    forwarder = forward(tracker)
    for step in range(100):
        forwarder.add(point(step))
    [warning] = forwarder.take_warnings()
    assert warning.startswith("Scripted takes values more slowly") and warning.endswith("See the script.")
    gate.set()
    assert forwarder.wait(20)
    assert tracker.steps == [95, 96, 97, 98, 99]
    assert forwarder.take_warnings() == []


def test_a_refused_run_is_given_up_with_one_warning(forward):
    def refuse(call, number):
        raise TrackerRefused("HTTP 401")

    forwarder = forward(ScriptedTracker(refuse))
    for step in range(10):
        forwarder.add(point(step))
    assert forwarder.wait(20)
    [warning] = forwarder.take_warnings()
    assert "Scripted refused values of the job: HTTP 401. The job is not affected." in warning


def test_refused_values_do_not_hold_up_those_after_them(forward):
    def refuse(call, number):
        if call == "file":
            raise TrackerRefused("HTTP 413")

    tracker = ScriptedTracker(refuse)
    forwarder = forward(tracker)
    forwarder.add(ResultFile("report.json", 2, lambda: io.BytesIO(b"{}")))
    forwarder.add(point(1))
    assert forwarder.wait(20)
    assert tracker.steps == [1] and len(forwarder.take_warnings()) == 1


def test_a_file_that_was_replaced_meanwhile_is_left_out(forward):
    def gone():
        raise FrsError("It was replaced.")

    tracker = ScriptedTracker()
    forwarder = forward(tracker)
    forwarder.add(ResultFile("report.json", 2, gone))
    forwarder.add(point(1))
    assert forwarder.wait(20)
    assert tracker.steps == [1] and forwarder.take_warnings() == []


def test_a_tracker_that_hangs_is_waited_for_a_bounded_time(gate, forward):
    tracker = ScriptedTracker(lambda call, number: gate.wait() if call == "points" else None)
    forwarder = forward(tracker)
    forwarder.add(point(1))
    assert not forwarder.wait(0.2)
    forwarder.warn_of_rest()
    assert "has not taken" in forwarder.take_warnings()[0]
    forwarder.close()
    assert tracker.closed.is_set()


def test_a_tracker_that_has_failed_for_as_long_already_is_not_waited_for(monkeypatch, forward):
    tracker = ScriptedTracker(unavailable("start"))
    forwarder = forward(tracker)
    until(lambda: forwarder.take_warnings() == [] and tracker.numbers["start"] > 2)
    now = module.time.monotonic()
    monkeypatch.setattr(module.time, "monotonic", lambda: now + 100)
    assert not forwarder.wait(99)
    forwarder.warn_of_rest()
    assert "in time (ConnectError)" in forwarder.take_warnings()[0]
    forwarder.close()


def test_nothing_is_forwarded_after_the_close(forward):
    tracker = ScriptedTracker()
    forwarder = forward(tracker)
    assert forwarder.wait(20)
    forwarder.close()
    forwarder.add(point(1))
    until(lambda: not any(thread.name == "tracker Scripted" for thread in threading.enumerate()))
    assert tracker.steps == []
