"""The service is killed and restarted while a client waits for a job or reads its events."""

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from servers import ApiProcess
from streaming import EventWriter
from waiting import until

from frs_client import AsyncClient, Client, NoAnswer
from frs_client.aio import transport as async_transport
from frs_client.sync import transport as sync_transport
from store.db.database import Database, open_database
from store.initialise import initialise
from store.settings import Settings


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    settings = Settings(data=tmp_path_factory.mktemp("service") / "data")
    initialise(settings)
    return settings


@pytest.fixture(scope="module")
def database(settings: Settings) -> Iterator[Database]:
    database = open_database(settings.database_url)
    yield database
    database.engine.dispose()


@pytest.fixture(scope="module")
def api(settings: Settings) -> Iterator[ApiProcess]:
    with ApiProcess(settings) as api:
        yield api


def restart(api: ApiProcess) -> None:
    for how in (signal.SIGKILL, signal.SIGTERM):
        api.stop(how)
        api.start()


def in_thread(function: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    return thread


def test_both_clients_receive_every_event_once_and_the_ended_job(api: ApiProcess, database: Database) -> None:
    writer = EventWriter(database, 1)
    job_id = writer.leases[0].job_id
    seen: dict[str, list[int]] = {"sync": [], "async": []}
    ended: list[str] = []

    def read() -> None:
        with Client(api.url, api.key) as client:
            seen["sync"].extend(event.id for event in client.jobs.stream(job_id) if event.id is not None)

    async def read_async() -> None:
        async with AsyncClient(api.url, api.key) as client:
            waiting = asyncio.create_task(client.jobs.wait(job_id))
            async for event in client.jobs.stream(job_id):
                seen["async"].extend([event.id] if event.id is not None else [])
            ended.append((await waiting).status)

    def wait() -> None:
        ended.append(Client(api.url, api.key).jobs.wait(job_id).status)

    threads = [in_thread(read), in_thread(lambda: asyncio.run(read_async())), in_thread(wait)]
    until(lambda: all(len(numbers) > 20 for numbers in seen.values()), 60)
    restart(api)
    before = {name: len(numbers) for name, numbers in seen.items()}
    until(lambda: all(len(numbers) > before[name] + 20 for name, numbers in seen.items()), 60)
    writer.finish()
    for thread in threads:
        thread.join(60)
    assert ended == ["succeeded", "succeeded"]
    assert seen["sync"] == seen["async"] == writer.event_numbers(job_id)


def test_waiting_ends_after_the_timeout_and_the_job_continues(
    api: ApiProcess, database: Database, connect: Any
) -> None:
    writer = EventWriter(database, 1)
    job_id = writer.leases[0].job_id
    client = connect(api.url, api.key)
    with pytest.raises(TimeoutError, match=f"{job_id} has not ended in time"):
        client.jobs.wait(job_id, timeout=0)
    assert client.jobs.get(job_id).status == "running"
    writer.finish()
    assert client.jobs.wait(job_id, timeout=0).status == "succeeded"


def test_a_client_gives_up_on_a_service_that_does_not_return(
    api: ApiProcess, database: Database, connect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (sync_transport, async_transport):
        monkeypatch.setattr(module, "RECONNECT_SECONDS", 0.5)
    writer = EventWriter(database, 1)
    events = iter(connect(api.url, api.key).jobs.stream(writer.leases[0].job_id))
    next(events)
    api.stop(signal.SIGKILL)
    with pytest.raises(NoAnswer, match="No service answers"):
        list(events)
    writer.finish()
    api.start()


def test_metrics_logs_and_report_of_a_job_are_read(api: ApiProcess, database: Database, connect: Any) -> None:
    writer = EventWriter(database, 1)
    job_id = writer.leases[0].job_id
    client = connect(api.url, api.key)
    until(lambda: any(client.jobs.logs(job_id)), 60)
    writer.evaluate(epoch=1)
    writer.finish()
    rows = client.jobs.metrics(job_id, ["train/loss"]).rows()
    assert rows[0] == {"key": "train/loss", "step": 1, "value": 1.0}
    assert {row["key"] for row in client.jobs.metrics(job_id, x="time", max_points=2).rows()} >= {
        "train/loss",
        "train/lr",
    }
    assert next(client.jobs.logs(job_id)).message.startswith("step 5")
    assert len(list(client.jobs.logs(job_id, tail=1))) == 1
    assert next(client.jobs.evaluations(job_id)).metrics["bbox_mAP"] == 0.5
