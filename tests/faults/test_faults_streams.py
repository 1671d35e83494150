"""F8: the API is restarted while clients stream. I7: no client receives a gap or a duplicate."""

import io
import itertools
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console
from servers import ApiProcess
from streaming import EventWriter, StreamClient, run_clients
from waiting import until

from cli.watching import follow
from frs_client import Client, ServiceError
from frs_client.sync import transport
from store.db.database import Database, open_database
from store.initialise import initialise
from store.settings import Settings

KILL_AND_TERM = (signal.SIGKILL, signal.SIGTERM)
JOBS = 4
STREAMS_END_WITHIN = 5.0


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    settings = Settings(data=tmp_path / "data")
    initialise(settings)
    return settings


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    database = open_database(settings.database_url)
    yield database
    database.engine.dispose()


@pytest.fixture
def api(settings: Settings) -> Iterator[ApiProcess]:
    api = ApiProcess(settings, FRS_MAX_STREAMS_PER_KEY="1000")
    api.start()
    yield api
    api.stop(signal.SIGKILL)


@pytest.mark.parametrize(
    ("clients", "restarts"), [(20, 2), pytest.param(200, 10, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])]
)
def test_clients_receive_every_event_once_across_restarts_of_the_api(
    api: ApiProcess, database: Database, clients: int, restarts: int
) -> None:
    writer = EventWriter(database, JOBS)
    ids = [lease.job_id for lease in writer.leases]
    listeners = [StreamClient(api.port, api.key, job_id) for job_id in itertools.islice(itertools.cycle(ids), clients)]
    listening = run_clients(listeners)
    for how in itertools.islice(itertools.cycle(KILL_AND_TERM), restarts):
        seen = {id(listener): len(listener.numbers) for listener in listeners}
        until(lambda: all(len(listener.numbers) > seen[id(listener)] + 20 for listener in listeners), 120)  # noqa: B023
        api.stop(how)
        api.start()
    writer.finish()
    listening.join(120)
    assert not listening.is_alive(), "every stream ends with its job"
    for listener in listeners:
        assert listener.connections > restarts, "it was there before and after each restart"
        assert listener.numbers == writer.event_numbers(listener.job_id)


def test_a_terminated_process_ends_its_streams_immediately(api: ApiProcess, database: Database) -> None:
    writer = EventWriter(database, 1)
    listeners = [StreamClient(api.port, api.key, writer.leases[0].job_id) for _ in range(20)]
    run_clients(listeners)
    until(lambda: all(listener.numbers for listener in listeners), 60)
    assert api.stop(signal.SIGTERM) < STREAMS_END_WITHIN, "before uvicorn would have cut them off"
    api.start()
    writer.finish()


def test_the_client_resumes_after_a_restart_of_the_api(api: ApiProcess, database: Database) -> None:
    writer = EventWriter(database, 1)
    [lease] = writer.leases
    client, seen = Client(api.url, api.key), []

    def read() -> None:
        for event in client.events(lease.job_id):
            seen.extend([event.id] if event.id else [])

    reading = threading.Thread(target=read, daemon=True)
    reading.start()
    for how in KILL_AND_TERM:
        before = len(seen)
        until(lambda: len(seen) > before + 20, 60)  # noqa: B023
        api.stop(how)
        api.start()
    writer.finish()
    reading.join(60)
    assert seen == writer.event_numbers(lease.job_id)


def test_following_a_job_survives_a_restart_and_shows_each_evaluation_once(api: ApiProcess, database: Database) -> None:
    writer, shown = EventWriter(database, 1), io.StringIO()
    client, ended = Client(api.url, api.key), []
    writer.evaluate(epoch=1)
    screen, job_id = Console(file=shown, width=200), writer.leases[0].job_id
    watching = threading.Thread(target=lambda: ended.append(follow(client, job_id, screen)), daemon=True)
    watching.start()
    until(lambda: "student, epoch 1" in shown.getvalue(), 60)
    writer.evaluate(epoch=2)
    until(lambda: "student, epoch 2" in shown.getvalue(), 60)
    api.stop(signal.SIGKILL)
    writer.evaluate(epoch=3)
    api.start()
    until(lambda: "student, epoch 3" in shown.getvalue(), 60)
    assert watching.is_alive()
    writer.finish()
    watching.join(60)
    assert [job["status"] for job in ended] == ["succeeded"]
    assert [shown.getvalue().count(f"student, epoch {epoch}:") for epoch in (1, 2, 3)] == [1, 1, 1]


def test_the_client_gives_up_on_a_service_that_does_not_return(
    api: ApiProcess, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "RECONNECT_SECONDS", 0.5)
    writer = EventWriter(database, 1)
    events = Client(api.url, api.key).events(writer.leases[0].job_id)
    next(events)
    api.stop(signal.SIGKILL)
    with pytest.raises(ServiceError, match="No service answers"):
        list(events)
    writer.finish()
