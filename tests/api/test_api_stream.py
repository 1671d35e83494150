"""The stream of a job: replayed, live, resumed. What happens when the API restarts is in tests/faults."""

import asyncio
import time
from contextlib import asynccontextmanager

import pytest

from api.http.auth import Caller
from api.http.errors import ApiError
from api.streaming import history, subscribers
from api.streaming import streams as stream
from api.streaming.streams import Streams
from cli.sse import parse
from frs import events
from store.db.api_keys import Scope
from store.db.tables import Job
from store.jobs import actions
from store.states import JobStatus

NUMBERED = ["status", "status", "rewound", "phase", "metric", "log", "evaluation", "checkpoint", "artifact", "status"]


@pytest.fixture
def running(service, shapes):
    return service.claim(service.submit()["id"])


def metrics(*steps):
    return [
        events.Metrics(step=step, epoch=1, values={"train/loss": float(step), "val/bbox_mAP_l": None}) for step in steps
    ]


def a_life(service, lease):
    service.record(lease, events.Rewound(to_step=0), events.Phase(phase="training"), *metrics(1))
    service.record(lease, events.Progress(epoch=1, epochs=1, step=1, steps=9, fraction=0.1), events.Log(message="a\nb"))
    service.evaluate(lease, "student", 0.5)
    service.checkpoint(lease)
    service.artifact(lease, "a.json", b"{}")
    service.settle(lease)


def read(service, job_id, **options):
    """The whole stream of a job that has ended."""
    response = service.client.get(f"/jobs/{job_id}/stream", **options)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    return list(parse(response.text.split("\n")))


def test_a_job_that_has_ended_is_replayed_to_its_end(service, running):
    a_life(service, running)
    told = read(service, running.job_id)
    assert [event.type for event in told] == [*NUMBERED, "progress", "end"]
    assert [event.id for event in told] == [*range(1, len(NUMBERED) + 1), None, None]
    assert told[-1].data == {"status": "succeeded", "end_reason": "completed"}
    assert told[-2].data["step"] == 1


def test_metrics_of_a_step_are_one_event(service, running):
    a_life(service, running)
    [metric] = [event for event in read(service, running.job_id) if event.type == "metric"]
    assert metric.data.items() >= {"step": 1, "epoch": 1, "attempt": 1}.items()
    assert metric.data["values"] == {"train/loss": 1.0, "val/bbox_mAP_l": None}
    assert metric.data["at"].endswith("Z")


@pytest.mark.parametrize("how", [{"headers": {"Last-Event-ID": "7"}}, {"params": {"since": 7}}])
def test_it_goes_on_after_a_number(service, running, how):
    a_life(service, running)
    assert [event.id for event in read(service, running.job_id, **how) if event.id] == [8, 9, 10]


def test_what_a_client_saw_last_counts_more_than_where_it_began(service, running):
    a_life(service, running)
    options = {"headers": {"Last-Event-ID": "9"}, "params": {"since": 2, "from": "now"}}
    assert [event.id for event in read(service, running.job_id, **options) if event.id] == [10]


def test_from_now_on_nothing_old_is_told(service, running):
    a_life(service, running)
    told = read(service, running.job_id, params={"from": "now"})
    assert [event.type for event in told] == ["progress", "end"]


def test_a_long_history_comes_in_pages_without_a_gap(service, running, monkeypatch):
    monkeypatch.setattr(stream, "PAGE", 3)
    for step in range(1, 12):
        service.record(running, *metrics(step), *[events.Log(message="x")] * (step % 3))
    service.settle(running)
    newest = service.get(f"/jobs/{running.job_id}/metrics")["next_since"]
    assert [event.id for event in read(service, running.job_id) if event.id] == list(range(1, newest + 1))


def test_metrics_measured_anew_come_under_new_numbers(service, running):
    service.record(running, events.Rewound(to_step=0), *metrics(1, 2, 3))  # 3, 4, 5, 6
    service.record(running, events.Rewound(to_step=1), *metrics(2, 3))  # 7, 8, 9
    service.settle(running)
    told = {event.id: event.data.get("step") for event in read(service, running.job_id) if event.type == "metric"}
    assert told == {4: 1, 8: 2, 9: 3}, "the void ones are gone"


@pytest.mark.parametrize(
    "how", [{"headers": {"Last-Event-ID": "x"}}, {"headers": {"Last-Event-ID": "-1"}}, {"params": {"from": "here"}}]
)
def test_a_place_that_is_none_is_refused(service, running, how):
    response = service.client.get(f"/jobs/{running.job_id}/stream", **how)
    service.refused(response, 422, "invalid_request")


def test_a_number_from_the_future_waits_for_what_comes_next(service, running):
    a_life(service, running)
    assert [event.type for event in read(service, running.job_id, params={"since": 10**9})] == ["progress", "end"]


# live: on the loop of the test


@asynccontextmanager
async def streaming(service, most=100):
    streams = Streams(service.database, most)
    task = asyncio.create_task(streams.run())
    yield streams
    task.cancel()


async def still_known():
    """The key is good."""


def state_of(service, job_id):
    with service.database.read() as session:
        return history.states(session, [job_id])[job_id]


def begin(streams, service, job_id, after=0):
    return streams.follow(job_id, state_of(service, job_id), after, Caller("key_1", "admin", Scope.ADMIN), still_known)


def follow(streams, service, job_id, after=0):
    return begin(streams, service, job_id, after)._follower


async def told_by(follower, enough):
    """Events until `enough(events)`, or all."""
    found = []
    while not enough(found) and (chunk := await asyncio.wait_for(follower.next(), 20)) is not None:
        found += parse(chunk.decode().split("\n"))
    return found


def test_what_happens_is_told_at_once_and_progress_only_when_it_changed(service, running):
    async def live():
        async with streaming(service) as streams:
            follower = follow(streams, service, running.job_id)
            assert [event.id for event in await told_by(follower, lambda told: len(told) == 2)] == [1, 2]
            for step in (1, 1, 2):
                progress = events.Progress(epoch=1, epochs=1, step=step, steps=9, fraction=0.1)
                service.record(running, progress)
                await asyncio.sleep(3 * stream.POLL_SECONDS)
            service.record(running, *metrics(1))
            service.settle(running)
            return await told_by(follower, lambda _: False)

    told = asyncio.run(live())
    assert [event.data["step"] for event in told if event.type == "progress"] in ([1, 2], [2])
    assert [event.id for event in told if event.id] == [3, 4]
    assert told[-1].type == "end"


def test_one_that_does_not_read_loses_its_queue_but_no_event(service, running):
    async def live():
        async with streaming(service) as streams:
            follower = follow(streams, service, running.job_id)
            await told_by(follower, lambda told: len(told) == 2)
            waiting = asyncio.create_task(told_by(follower, bool))
            await asyncio.sleep(0)
            service.record(running, *metrics(1))
            [first] = await waiting  # it has caught up: from its queue
            for step in range(2, 2 * subscribers.QUEUE):
                service.record(running, *metrics(step))
            while follower.channel.seq < 2 * subscribers.QUEUE + 1:
                await asyncio.sleep(0.05)
            assert len(follower._queue) == 0
            service.settle(running)
            return [first, *await told_by(follower, lambda _: False)]

    told = asyncio.run(live())
    assert [event.id for event in told if event.id] == list(range(3, 2 * subscribers.QUEUE + 3))


def test_a_client_ahead_of_the_reader_hears_nothing_twice(service, running):
    async def live():
        streams = Streams(service.database, 100)
        begin(streams, service, running.job_id)  # the reader has seen numbers 1 and 2
        service.record(running, *metrics(1, 2))
        ahead = follow(streams, service, running.job_id, 4)
        waiting = asyncio.create_task(told_by(ahead, lambda told: told and told[-1].id == 5))
        await asyncio.sleep(0)
        reading = asyncio.create_task(streams.run())
        while ahead.channel.seq < 4:
            await asyncio.sleep(0.05)
        service.record(running, *metrics(3))
        told = await waiting
        reading.cancel()
        return told

    assert [event.id for event in asyncio.run(live())] == [5]


def test_clients_that_come_at_different_times_see_the_same(service, running):
    async def live():
        async with streaming(service) as streams:
            reading = []
            for step in range(1, 60):
                service.record(running, *metrics(step))
                if step % 10 == 0:
                    reading.append(
                        asyncio.create_task(told_by(follow(streams, service, running.job_id), lambda _: False))
                    )
                await asyncio.sleep(0.02)
            service.settle(running)
            return await asyncio.gather(*reading)

    for told in asyncio.run(live()):
        assert [event.id for event in told if event.id] == list(range(1, 63))


def test_a_job_taken_up_again_is_followed_anew(service, running):
    service.settle(running, JobStatus.FAILED)
    last = read(service, running.job_id)[-2].id

    async def live():
        async with streaming(service) as streams:
            service._do(actions.resume, running.job_id)
            follower = follow(streams, service, running.job_id, last)
            lease = service.claim(running.job_id)
            await told_by(follower, lambda told: len(told) == 2)
            service.settle(lease)
            return await told_by(follower, lambda _: False)

    assert [event.type for event in asyncio.run(live())] == ["status", "end"]


def test_a_deleted_job_closes_its_stream(service, running):
    async def live():
        async with streaming(service) as streams:
            follower = follow(streams, service, running.job_id)
            await told_by(follower, lambda told: len(told) == 2)
            service._do(lambda session: session.delete(session.get(Job, running.job_id)))
            return await told_by(follower, lambda _: False)

    [last] = asyncio.run(live())
    assert (last.type, last.data["code"]) == ("closed", "job_not_found")


def test_silence_is_broken_by_a_ping(service, running, monkeypatch):
    monkeypatch.setattr(subscribers, "PING_SECONDS", 0.1)
    monkeypatch.setattr(stream, "PING_SECONDS", 0.1)

    async def live():
        async with streaming(service) as streams:
            follower = follow(streams, service, running.job_id)
            await follower.next()
            return await asyncio.wait_for(follower.next(), 20)

    assert asyncio.run(live()) == b": ping\n\n"


def test_a_key_has_so_many_streams_at_most(service, running):
    async def live():
        async with streaming(service, most=2) as streams:
            first, _ = (begin(streams, service, running.job_id) for _ in range(2))
            with pytest.raises(ApiError) as refused:
                begin(streams, service, running.job_id)
            first._leave()
            begin(streams, service, running.job_id)
            return refused.value

    refusal = asyncio.run(live())
    assert (refusal.status, refusal.code) == (429, "too_many_streams")


def test_a_process_has_so_many_streams_at_most_and_none_when_it_ends(service, running, monkeypatch):
    monkeypatch.setattr(stream, "MAX_STREAMS", 1)

    async def live():
        async with streaming(service) as streams:
            first = begin(streams, service, running.job_id)
            with pytest.raises(ApiError) as too_many:
                begin(streams, service, running.job_id)
            streams.end()
            assert await asyncio.wait_for(first._follower.next(), 20) is None
            first._leave()
            with pytest.raises(ApiError) as ending:
                begin(streams, service, running.job_id)
            return too_many.value, ending.value

    for refusal in asyncio.run(live()):
        assert (refusal.status, refusal.code) == (503, "too_many_streams")


def test_a_database_that_does_not_answer_is_waited_for(service, running, monkeypatch):
    monkeypatch.setattr(subscribers, "PAUSE_SECONDS", 0.05)
    page, failures = stream._page, []

    def fails_once(*arguments):
        if not failures:
            failures.append(time.monotonic())
            raise subscribers.SQLAlchemyError("away")
        return page(*arguments)

    monkeypatch.setattr(stream, "_page", fails_once)
    service.settle(running)
    assert [event.id for event in read(service, running.job_id) if event.id] == [1, 2, 3]
    assert failures
