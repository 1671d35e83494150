"""Limits that API processes share in Redis, while Redis runs, is stopped or frozen."""

import asyncio
import logging
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest
from fastapi.testclient import TestClient
from servers import Redis

from api.app import create_app
from api.http import shared_limits
from api.http.errors import ApiError
from api.http.rate_limits import RateLimit
from api.http.shared_limits import SharedLimits
from api.streaming import slots
from api.streaming.slots import StreamSlots
from store.settings import Settings

T = TypeVar("T")
Limit = TypeVar("Limit")


@asynccontextmanager
async def opened(url: str | None) -> AsyncIterator[SharedLimits]:
    """The shared limits of one process."""
    limits = SharedLimits(url)
    yield limits
    await limits.close()


def with_two(make: Callable[[SharedLimits], Limit], url: str, act: Callable[[Limit, Limit], Awaitable[T]]) -> T:
    """Call `act` with a limit of each of two processes."""

    async def run() -> T:
        async with AsyncExitStack() as stack:
            one, other = [make(await stack.enter_async_context(opened(url))) for _ in range(2)]
            return await act(one, other)

    return asyncio.run(run())


with_two_rate_limits = partial(with_two, partial(RateLimit, name="requests"))
with_two_processes_of_3_streams = partial(with_two, partial(StreamSlots, max_per_key=3))


async def is_refused(slots: StreamSlots, key_id: str = "key_1") -> bool:
    """Return whether a process refuses another stream; one that is not refused stays open."""
    try:
        await slots.take(key_id)
    except ApiError as error:
        assert (error.status, error.code) == (429, "too_many_streams")
        return True
    return False


async def until_counted(redis: Redis, count: int) -> None:
    """Wait until Redis has this number of slots of the key that have not expired."""
    while redis.client.zcount("frs:streams:key_1", redis.client.time()[0] + 1, "+inf") != count:
        await asyncio.sleep(0.02)


def test_two_processes_take_tokens_from_one_bucket(redis: Redis) -> None:
    async def act(one: RateLimit, other: RateLimit) -> list[float]:
        return [await limit.take("key_1", 3) for limit in (one, other, one, other, one)]

    *allowed, first, second = with_two_rate_limits(redis.url, act)
    assert allowed == [0.0] * 3
    assert 0 < second < first <= 20, "a third of a minute until the next token"


def test_a_shared_bucket_refills_evenly(redis: Redis) -> None:
    async def act(one: RateLimit, other: RateLimit) -> list[float]:
        for _ in range(3):
            await one.take("key_1", 3)
        time_when_full = float(redis.client.get("frs:requests:key_1"))
        redis.client.set("frs:requests:key_1", time_when_full - 41)  # as if 41 s had passed
        return [await other.take("key_1", 3) for _ in range(3)]

    first, second, third = with_two_rate_limits(redis.url, act)
    assert (first, second) == (0.0, 0.0)
    assert 15 < third < 20


def test_clients_and_limits_have_buckets_of_their_own(redis: Redis) -> None:
    async def run() -> list[float]:
        async with opened(redis.url) as shared:
            requests, failures = RateLimit(shared, "requests"), RateLimit(shared, "auth-failures")
            return [
                await requests.take("a", 1),
                await requests.take("b", 1),
                await failures.take("a", 1),
                await requests.take("a", 1),
            ]

    *allowed, refused = asyncio.run(run())
    assert allowed == [0.0] * 3 and refused > 0


def test_an_unused_bucket_disappears_from_redis(redis: Redis) -> None:
    async def act(one: RateLimit, other: RateLimit) -> None:
        await one.take("key_1", 3)

    with_two_rate_limits(redis.url, act)
    assert 0 < redis.client.ttl("frs:requests:key_1") <= 61


@pytest.mark.parametrize("fault", ["stopped", "frozen"])
def test_without_redis_each_process_counts_for_itself_and_warns_once(
    redis: Redis, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    async def act(one: RateLimit, other: RateLimit) -> list[float]:
        await one.take("key_1", 2)
        redis.stop() if fault == "stopped" else redis.freeze()
        return [await limit.take("key_1", 2) for limit in (one, one, one, other, other, other)]

    waits = with_two_rate_limits(redis.url, act)
    assert [wait > 0 for wait in waits] == [False, False, True] * 2
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2, "one of each process"


def test_processes_share_buckets_again_when_redis_is_back(
    redis: Redis, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_limits, "PAUSE_SECONDS", 0.0)
    caplog.set_level(logging.INFO)

    async def act(one: RateLimit, other: RateLimit) -> list[float]:
        await one.take("key_1", 2)
        redis.stop()
        await one.take("key_1", 2)
        redis.start()
        return [await limit.take("key_1", 2) for limit in (one, other, one)]

    waits = with_two_rate_limits(redis.url, act)
    assert [wait > 0 for wait in waits] == [False, False, True]
    assert [record.levelno for record in caplog.records] == [logging.WARNING, logging.INFO]


def test_a_restarted_redis_is_not_an_outage(redis: Redis, caplog: pytest.LogCaptureFixture) -> None:
    async def act(one: RateLimit, other: RateLimit) -> list[float]:
        await one.take("key_1", 1)
        redis.stop()
        redis.start()
        return [await one.take("key_1", 1), await other.take("key_1", 1)]

    first, second = with_two_rate_limits(redis.url, act)
    assert first == 0.0 and second > 0, "the restarted server has lost the bucket, and shares the new one"
    assert not caplog.records


@pytest.mark.parametrize(
    "url", ["redis://:pass/word@host:6379/0", "redis://127.0.0.1:1/0", "redis://127.0.0.1:1/0?unknown=1"]
)
def test_an_unusable_url_neither_rejects_requests_nor_reaches_the_log(
    caplog: pytest.LogCaptureFixture, url: str
) -> None:
    async def act(one: RateLimit, other: RateLimit) -> list[float]:
        return [await one.take("key_1", 1), await one.take("key_1", 1)]

    first, second = with_two_rate_limits(url, act)
    assert first == 0.0 and second > 0
    assert "pass" not in caplog.text


def test_a_redis_that_refuses_scripts_is_like_none(redis: Redis) -> None:
    redis.client.acl_setuser("wakeups", enabled=True, nopass=True, categories=["+@all", "-@scripting"], keys=["*"])

    async def act(one: RateLimit, other: RateLimit) -> list[float]:
        return [await one.take("key_1", 1), await other.take("key_1", 1)]

    assert with_two_rate_limits(redis.url.replace("//", "//wakeups:x@"), act) == [0.0, 0.0]


def test_two_services_apply_the_rate_limit_of_a_key_and_of_guesses_together(
    redis: Redis, template: Path, tmp_path: Path
) -> None:
    settings = Settings(
        data=shutil.copytree(template, tmp_path / "data"),
        broker_url=redis.url,
        requests_per_minute=3,
        auth_failures_per_minute=3,
    )
    key = {"Authorization": f"Bearer {settings.api_key_file.read_text().strip()}"}
    guess = {"Authorization": "Bearer frs_guess"}
    with ExitStack() as stack:
        services = [stack.enter_context(TestClient(create_app(settings))) for _ in range(2)]
        statuses = [service.get("/version", headers=key).status_code for service in services * 2]
        guesses = [service.get("/version", headers=guess).status_code for service in services * 2]
    assert statuses == [200, 200, 200, 429]
    assert guesses == [401, 401, 401, 429]


def test_the_streams_of_a_key_are_limited_in_all_processes_together(redis: Redis) -> None:
    async def act(one: StreamSlots, other: StreamSlots) -> list[bool]:
        slot = await one.take("key_1")
        refused = [await is_refused(slots) for slots in (other, other, one, other)]
        one.release("key_1", slot)
        await until_counted(redis, 2)
        return [*refused, await is_refused(other, "key_2"), await is_refused(other), await is_refused(one)]

    refused = with_two_processes_of_3_streams(redis.url, act)
    assert refused == [False, False, True, True, False, False, True]


def test_concurrent_streams_do_not_exceed_the_limit(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_limits, "TIMEOUT_SECONDS", 30.0)  # a busy machine is not an outage of Redis

    async def act(one: StreamSlots, other: StreamSlots) -> list[bool]:
        return await asyncio.gather(*(is_refused(slots) for slots in (one, other) * 10))

    assert sorted(with_two_processes_of_3_streams(redis.url, act)) == [False] * 3 + [True] * 17


def test_the_slots_of_a_killed_process_expire(redis: Redis) -> None:
    async def act(killed: StreamSlots, other: StreamSlots) -> list[bool]:
        refused = [await is_refused(slots) for slots in (killed, killed, other, other)]
        past = redis.client.time()[0] - 1
        redis.client.zadd("frs:streams:key_1", dict.fromkeys(redis.client.zrange("frs:streams:key_1", 0, 1), past))
        return [*refused, await is_refused(other), await is_refused(other), await is_refused(other)]

    refused = with_two_processes_of_3_streams(redis.url, act)
    assert refused == [False, False, False, True, False, False, True]


@pytest.mark.parametrize("fault", ["expire", "disappear"])
def test_a_living_process_renews_its_slots(redis: Redis, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    monkeypatch.setattr(slots, "RENEWAL_SECONDS", 0.02)

    async def act(one: StreamSlots, other: StreamSlots) -> bool:
        for _ in range(3):
            await one.take("key_1")
        renewing = asyncio.create_task(one.renew_periodically())
        if fault == "expire":
            redis.client.zadd("frs:streams:key_1", dict.fromkeys(redis.client.zrange("frs:streams:key_1", 0, -1), 0))
        else:
            redis.client.flushall()
        await until_counted(redis, 3)
        renewing.cancel()
        return await is_refused(other)

    assert with_two_processes_of_3_streams(redis.url, act)


def test_the_slots_of_a_key_disappear_from_redis_with_its_processes(redis: Redis) -> None:
    async def act(one: StreamSlots, other: StreamSlots) -> None:
        await one.take("key_1")

    with_two_processes_of_3_streams(redis.url, act)
    assert 0 < redis.client.ttl("frs:streams:key_1") <= slots.EXPIRY_SECONDS


@pytest.mark.parametrize("fault", ["stopped", "frozen"])
def test_without_redis_each_process_limits_its_own_streams(redis: Redis, fault: str) -> None:
    async def act(one: StreamSlots, other: StreamSlots) -> list[bool]:
        slot = await one.take("key_1")
        redis.stop() if fault == "stopped" else redis.freeze()
        refused = [await is_refused(one) for _ in range(3)]
        one.release("key_1", slot)
        return [*refused, await is_refused(one), await is_refused(other)]

    assert with_two_processes_of_3_streams(redis.url, act) == [False, False, True, False, False]
