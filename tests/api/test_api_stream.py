"""Event streams of jobs: replay, live events and resumption. Restarts of the API are tested in tests/faults."""

import asyncio
from contextlib import asynccontextmanager
from itertools import chain, repeat
from unittest.mock import DEFAULT, Mock

import pytest
from sqlalchemy.exc import SQLAlchemyError

from api.http.auth import Caller
from api.http.errors import ApiError
from api.http.shared_limits import SharedLimits
from api.streaming import history, subscribers
from api.streaming import streams as streams_module
from api.streaming.streams import Streams
from frs import events
from frs_client.sse import parse
from store.db.tables import Job
from store.jobs import actions
from store.states import JobStatus, Scope

NUMBERED_TYPES = [
    "status",
    "status",
    "rewound",
    "phase",
    "metric",
    "log",
    "evaluation",
    "checkpoint",
    "artifact",
    "status",
]


@pytest.fixture
def running(service, shapes):
    """The lease of a running job."""
    return service.claim(service.submit()["id"])


def metrics(*steps):
    """One `Metrics` event per step."""
    return [
        events.Metrics(step=step, epoch=1, values={"train/loss": float(step), "val/bbox_mAP_l": None}) for step in steps
    ]


def record_whole_job(service, lease):
    """Record one event of every type and finish the job."""
    service.record(lease, events.Rewound(to_step=0), events.Phase(phase="training"), *metrics(1))
    service.record(lease, events.Progress(epoch=1, epochs=1, step=1, steps=9, fraction=0.1), events.Log(message="a\nb"))
    service.evaluate(lease, "student", 0.5)
    service.checkpoint(lease)
    service.artifact(lease, "a.json", b"{}")
    service.finish(lease)


def read(service, job_id, **options):
    """Return all events of the stream of a job that has ended."""
    response = service.client.get(f"/jobs/{job_id}/stream", **options)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    return list(parse(response.text.split("\n")))


def test_a_job_that_has_ended_is_replayed_to_its_end(service, running):
    record_whole_job(service, running)
    stream = read(service, running.job_id)
    assert [event.type for event in stream] == [*NUMBERED_TYPES, "progress", "end"]
    assert [event.id for event in stream] == [*range(1, len(NUMBERED_TYPES) + 1), None, None]
    assert stream[-1].data == {"status": "succeeded", "end_reason": "completed"}
    assert stream[-2].data["step"] == 1


def test_metrics_of_a_step_are_one_event(service, running):
    record_whole_job(service, running)
    [metric] = [event for event in read(service, running.job_id) if event.type == "metric"]
    assert metric.data.items() >= {"step": 1, "epoch": 1, "attempt": 1}.items()
    assert metric.data["values"] == {"train/loss": 1.0, "val/bbox_mAP_l": None}
    assert metric.data["at"].endswith("Z")


@pytest.mark.parametrize("options", [{"headers": {"Last-Event-ID": "7"}}, {"params": {"since": 7}}])
def test_a_stream_continues_after_a_sequence_number(service, running, options):
    record_whole_job(service, running)
    assert [event.id for event in read(service, running.job_id, **options) if event.id] == [8, 9, 10]


def test_last_event_id_takes_precedence_over_query_parameters(service, running):
    record_whole_job(service, running)
    options = {"headers": {"Last-Event-ID": "9"}, "params": {"since": 2, "from": "now"}}
    assert [event.id for event in read(service, running.job_id, **options) if event.id] == [10]


def test_from_now_skips_past_events(service, running):
    record_whole_job(service, running)
    stream = read(service, running.job_id, params={"from": "now"})
    assert [event.type for event in stream] == ["progress", "end"]


def test_a_long_history_is_read_in_pages_without_a_gap(service, running, monkeypatch):
    monkeypatch.setattr(streams_module, "PAGE_SIZE", 3)
    for step in range(1, 12):
        service.record(running, *metrics(step), *[events.Log(message="x")] * (step % 3))
    service.finish(running)
    newest = service.get(f"/jobs/{running.job_id}/metrics")["next_since"]
    assert [event.id for event in read(service, running.job_id) if event.id] == list(range(1, newest + 1))


def test_metrics_recorded_again_have_new_sequence_numbers(service, running):
    service.record(running, events.Rewound(to_step=0), *metrics(1, 2, 3))  # 3, 4, 5, 6
    service.record(running, events.Rewound(to_step=1), *metrics(2, 3))  # 7, 8, 9
    service.finish(running)
    steps = {event.id: event.data.get("step") for event in read(service, running.job_id) if event.type == "metric"}
    assert steps == {4: 1, 8: 2, 9: 3}, "invalidated metrics are absent"


@pytest.mark.parametrize(
    "options", [{"headers": {"Last-Event-ID": "x"}}, {"headers": {"Last-Event-ID": "-1"}}, {"params": {"from": "here"}}]
)
def test_an_invalid_start_position_is_rejected(service, running, options):
    response = service.client.get(f"/jobs/{running.job_id}/stream", **options)
    service.assert_problem(response, 422, "invalid_request")


def test_a_sequence_number_beyond_the_last_waits_for_new_events(service, running):
    record_whole_job(service, running)
    assert [event.type for event in read(service, running.job_id, params={"since": 10**9})] == ["progress", "end"]


# Live streams, on the event loop of the test.


@asynccontextmanager
async def streaming(service, max_per_key=100):
    streams = Streams(service.database, SharedLimits(None), max_per_key)
    task = asyncio.create_task(streams.run())
    yield streams
    task.cancel()


async def recheck_key():
    """Accept the key."""


def state_of(service, job_id):
    with service.database.read() as session:
        return history.read_states(session, [job_id])[job_id]


async def open_stream(streams, service, job_id, after=0):
    return await streams.follow(
        job_id, state_of(service, job_id), after, Caller("key_1", "admin", frozenset(Scope)), recheck_key
    )


async def subscribe(streams, service, job_id, after=0):
    return (await open_stream(streams, service, job_id, after)).subscriber


async def receive(subscriber, is_enough):
    """Return the events until `is_enough(events)` or the end of the stream."""
    received = []
    while not is_enough(received) and (chunk := await asyncio.wait_for(subscriber.next(), 20)) is not None:
        received += parse(chunk.decode().split("\n"))
    return received


async def until_read(subscriber, seq):
    """Wait until the reader has read the job's events up to this sequence number."""
    while subscriber.channel.seq < seq:
        await asyncio.sleep(0.05)


def test_events_are_sent_at_once_and_progress_only_when_it_changes(service, running):
    async def live():
        async with streaming(service) as streams:
            subscriber = await subscribe(streams, service, running.job_id)
            assert [event.id for event in await receive(subscriber, lambda received: len(received) == 2)] == [1, 2]
            received = []
            for step in (1, 1, 2):
                progress = events.Progress(epoch=1, epochs=1, step=step, steps=9, fraction=0.1)
                service.record(running, progress, *metrics(step))
                received += await receive(subscriber, lambda batch: any(event.id for event in batch))
            service.finish(running)
            return received + await receive(subscriber, lambda _: False)

    received = asyncio.run(live())
    assert [event.data["step"] for event in received if event.type == "progress"] == [1, 2]
    assert [event.id for event in received if event.id] == [3, 4, 5, 6]
    assert received[-1].type == "end"


def test_a_slow_client_loses_its_queue_but_no_event(service, running, monkeypatch):
    pages, end_of_page = [], history.end_of_page
    monkeypatch.setattr(history, "end_of_page", lambda *span: (pages.append(span), end_of_page(*span))[1])

    async def live():
        async with streaming(service) as streams:
            subscriber = await subscribe(streams, service, running.job_id)
            await receive(subscriber, lambda received: len(received) == 2)
            waiting = asyncio.create_task(receive(subscriber, bool))
            await asyncio.sleep(0)
            service.record(running, *metrics(1))
            [first] = await waiting  # the client has caught up, so the event comes from its queue
            for step in range(2, 2 * subscribers.QUEUE_SIZE):
                service.record(running, *metrics(step))
            await until_read(subscriber, 2 * subscribers.QUEUE_SIZE + 1)
            service.finish(running)
            pages.clear()
            return [first, *await receive(subscriber, lambda _: False)]

    received = asyncio.run(live())
    assert [event.id for event in received if event.id] == list(range(3, 2 * subscribers.QUEUE_SIZE + 3))
    assert pages, "the client reads the database instead of its queue"


def test_a_client_ahead_of_the_reader_receives_no_event_twice(service, running):
    async def live():
        streams = Streams(service.database, SharedLimits(None), 100)
        await open_stream(streams, service, running.job_id)  # the reader is at sequence number 2
        service.record(running, *metrics(1, 2))
        ahead = await subscribe(streams, service, running.job_id, 4)
        waiting = asyncio.create_task(receive(ahead, lambda received: received and received[-1].id == 5))
        await asyncio.sleep(0)
        reading = asyncio.create_task(streams.run())
        await until_read(ahead, 4)
        service.record(running, *metrics(3))
        received = await waiting
        reading.cancel()
        return received

    assert [event.id for event in asyncio.run(live())] == [5]


def test_clients_that_connect_at_different_times_receive_the_same_events(service, running):
    async def live():
        async with streaming(service) as streams:
            reading = []
            for step in range(1, 60):
                service.record(running, *metrics(step))
                if step % 10 == 0:
                    subscriber = await subscribe(streams, service, running.job_id)
                    reading.append(asyncio.create_task(receive(subscriber, lambda _: False)))
                elif reading and step % 5 == 0:
                    await until_read(subscriber, step + 2)
            service.finish(running)
            return await asyncio.gather(*reading)

    for received in asyncio.run(live()):
        assert [event.id for event in received if event.id] == list(range(1, 63))


def test_a_resumed_job_has_a_live_stream_again(service, running):
    service.finish(running, JobStatus.FAILED)
    last = read(service, running.job_id)[-2].id

    async def live():
        async with streaming(service) as streams:
            service.transact(actions.resume, running.job_id)
            subscriber = await subscribe(streams, service, running.job_id, last)
            lease = service.claim(running.job_id)
            await receive(subscriber, lambda received: len(received) == 2)
            service.finish(lease)
            return await receive(subscriber, lambda _: False)

    assert [event.type for event in asyncio.run(live())] == ["status", "end"]


def test_a_deleted_job_closes_its_stream(service, running):
    async def live():
        async with streaming(service) as streams:
            subscriber = await subscribe(streams, service, running.job_id)
            await receive(subscriber, lambda received: len(received) == 2)
            service.transact(lambda session: session.delete(session.get(Job, running.job_id)))
            return await receive(subscriber, lambda _: False)

    [last] = asyncio.run(live())
    assert (last.type, last.data["code"]) == ("closed", "job_not_found")


def test_an_idle_stream_sends_a_ping(service, running, monkeypatch):
    monkeypatch.setattr(subscribers, "PING_SECONDS", 0.1)
    monkeypatch.setattr(streams_module, "PING_SECONDS", 0.1)

    async def live():
        async with streaming(service) as streams:
            subscriber = await subscribe(streams, service, running.job_id)
            await subscriber.next()
            return await asyncio.wait_for(subscriber.next(), 20)

    assert asyncio.run(live()) == b": ping\n\n"


def test_the_number_of_streams_per_key_is_limited(service, running):
    async def live():
        async with streaming(service, max_per_key=2) as streams:
            first, _ = [await open_stream(streams, service, running.job_id) for _ in range(2)]
            with pytest.raises(ApiError) as raised:
                await open_stream(streams, service, running.job_id)
            first.remove()
            await open_stream(streams, service, running.job_id)
            return raised.value

    error = asyncio.run(live())
    assert (error.status, error.code) == (429, "too_many_streams")


def test_the_number_of_streams_per_process_is_limited_and_none_open_at_shutdown(service, running, monkeypatch):
    monkeypatch.setattr(streams_module, "MAX_STREAMS", 1)

    async def live():
        async with streaming(service) as streams:
            first = await open_stream(streams, service, running.job_id)
            with pytest.raises(ApiError) as too_many:
                await open_stream(streams, service, running.job_id)
            streams.end()
            assert await asyncio.wait_for(first.subscriber.next(), 20) is None
            first.remove()
            with pytest.raises(ApiError) as ending:
                await open_stream(streams, service, running.job_id)
            return too_many.value, ending.value

    for error in asyncio.run(live()):
        assert (error.status, error.code) == (503, "too_many_streams")


def test_a_failed_query_is_retried(service, running, monkeypatch):
    monkeypatch.setattr(subscribers, "RETRY_SECONDS", 0.05)
    read_page = Mock(side_effect=chain([SQLAlchemyError("away")], repeat(DEFAULT)), wraps=history.end_of_page)
    monkeypatch.setattr(history, "end_of_page", read_page)
    service.finish(running)
    assert [event.id for event in read(service, running.job_id) if event.id] == [1, 2, 3]
    assert read_page.call_count > 1
