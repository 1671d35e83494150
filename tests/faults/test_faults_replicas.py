"""Two API processes behind a load balancer, with one PostgreSQL and one Redis, and a disk for uploads each."""

import shutil
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from round_robin import RoundRobinProxy
from servers import ApiProcess, Postgres, Redis, postgres_binaries, temporary_folder
from streaming import EventWriter, StreamClient, run_clients
from waiting import until

from frs.dataset.shapes.drawing import draw_dataset
from store.db.database import Database, open_database
from store.initialise import initialise
from store.settings import Settings

MAX_STREAMS = 3
WEIGHTS = {"Content-Type": "application/octet-stream"}


@dataclass(frozen=True)
class Replicas:
    """The two processes, the proxy in front of them, and their database."""

    one: ApiProcess
    other: ApiProcess
    proxy: RoundRobinProxy
    database: Database

    @property
    def key(self) -> str:
        """The first admin key."""
        return self.one.key

    def client(self, token: str | None = None) -> httpx2.Client:
        """Return a client whose requests go to the replicas in turn, by default with the admin key."""
        headers = {"Authorization": f"Bearer {token or self.key}"}
        no_reuse = httpx2.Limits(max_keepalive_connections=0)
        return httpx2.Client(base_url=self.proxy.url, headers=headers, limits=no_reuse, timeout=60)

    def client_of(self, owner: str, **limits: int) -> httpx2.Client:
        """Return a client with a new key of this owner, with these limits."""
        with self.client() as admin:
            response = admin.post("/api-keys", json={"name": owner, "owner": owner, **limits})
        return self.client(response.raise_for_status().json()["token"])


@pytest.fixture(scope="module")
def replicas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replicas]:
    if postgres_binaries() is None or shutil.which("redis-server") is None:
        pytest.skip("PostgreSQL or redis-server is not installed")
    folder = tmp_path_factory.mktemp("replicas")
    with ExitStack() as stack:
        postgres_folder, redis_folder = (stack.enter_context(temporary_folder(f"frs-{name}-")) for name in "pr")
        postgres = stack.enter_context(Postgres(postgres_folder, "fsync=off"))
        redis = stack.enter_context(Redis(redis_folder))
        settings = Settings(data=folder / "data", database_url=postgres.url, broker_url=redis.url)
        initialise(settings)
        one, other = (
            ApiProcess(
                settings,
                folder / f"{name}.log",
                FRS_UPLOADS_ROOT=str(folder / name),
                FRS_MAX_STREAMS_PER_KEY=str(MAX_STREAMS),
            )
            for name in ("one", "other")
        )
        for replica in (one, other):
            replica.start()
            stack.callback(replica.stop, signal.SIGKILL)
        proxy = stack.enter_context(RoundRobinProxy([one.port, other.port]))
        database = open_database(settings.database_url)
        stack.callback(database.engine.dispose)
        yield Replicas(one, other, proxy, database)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("archive")
    draw_dataset(folder / "shapes", train=2, val=1, size=32)
    return Path(shutil.make_archive(str(folder / "shapes"), "zip", folder, "shapes")).read_bytes()


def upload(client: httpx2.Client, archive: bytes, name: str = "mine") -> httpx2.Response:
    headers = {"Content-Type": "application/zip"}
    return client.post("/datasets/upload", params={"name": name}, content=archive, headers=headers)


def test_an_upload_to_one_replica_is_seen_by_both(replicas: Replicas, archive: bytes) -> None:
    with replicas.client_of("uploader") as client:
        dataset = upload(client, archive)
        assert dataset.status_code == 201, dataset.text
        assert [client.get("/datasets/mine").json() for _ in range(2)] == [dataset.json()] * 2
        pages = [client.get("/datasets/mine/images") for _ in range(2)]
        assert [page.status_code for page in pages] == [200, 200], pages[1].text
        path = f"/datasets/mine/images/{pages[0].json()['data'][0]['id']}/content"
        assert client.get(path).content == client.get(path).content != b""
        assert client.delete("/datasets/mine").status_code == 204
        assert [client.get("/datasets/mine").status_code for _ in range(2)] == [404, 404]


def test_one_archive_uploaded_to_both_replicas_is_kept_until_both_data_sets_are_deleted(
    replicas: Replicas, archive: bytes
) -> None:
    with replicas.client_of("twice") as client:
        assert [upload(client, archive, name).status_code for name in ("first", "second")] == [201, 201]
        assert client.delete("/datasets/first").status_code == 204
        assert [client.get("/datasets/second/images").status_code for _ in range(2)] == [200, 200]
        assert client.delete("/datasets/second").status_code == 204


def test_the_rate_limit_of_a_key_holds_in_sum(replicas: Replicas) -> None:
    with replicas.client_of("hasty", requests_per_minute=3) as client:
        responses = [client.get("/version") for _ in range(4)]
    assert [response.status_code for response in responses] == [200, 200, 200, 429]
    assert 1 <= int(responses[-1].headers["retry-after"]) <= 20


def test_the_limit_of_streams_of_a_key_holds_in_sum(replicas: Replicas) -> None:
    writer = EventWriter(replicas.database, 1)
    path = f"/jobs/{writer.leases[0].job_id}/stream"

    def open_stream(client: httpx2.Client, stack: ExitStack) -> bool:
        return stack.enter_context(client.stream("GET", path)).status_code == 200

    with replicas.client_of("admin") as client, ExitStack() as last:
        with ExitStack() as streams:
            opened = [open_stream(client, streams) for _ in range(MAX_STREAMS + 2)]
            assert opened == [True] * MAX_STREAMS + [False] * 2
        until(lambda: open_stream(client, last))
    writer.finish()


def test_the_disk_space_of_an_owner_holds_in_sum(replicas: Replicas) -> None:
    def send(number: int) -> int:
        query = {"name": f"weights {number}", "description": '{"architecture": "gfl"}'}
        return client.post("/detectors/upload", params=query, content=b"x" * 1000, headers=WEIGHTS).status_code

    with replicas.client_of("hoarder", max_disk_bytes=3500) as client, ThreadPoolExecutor(10) as threads:
        assert sorted(threads.map(send, range(10))) == [201] * 3 + [403] * 7
        [usage] = client.get("/usage").json()["owners"]
        assert usage["total"] == 3000


def test_the_number_of_active_jobs_of_an_owner_holds_in_sum(replicas: Replicas, archive: bytes) -> None:
    spec: dict[str, Any] = {"kind": "train", "dataset": "mine", "student": {"architecture": "gfl"}}
    with replicas.client_of("eager", max_active_jobs=3) as client, ThreadPoolExecutor(10) as threads:
        assert upload(client, archive).status_code == 201
        statuses = sorted(threads.map(lambda _: client.post("/jobs", json=spec).status_code, range(10)))
    assert statuses == [201] * 3 + [429] * 7


def test_a_stream_continues_at_the_other_replica_when_its_own_is_killed(replicas: Replicas) -> None:
    """The last test of this file: one replica is left."""
    writer = EventWriter(replicas.database, 1)
    [lease] = writer.leases
    clients = [StreamClient(replicas.proxy.port, replicas.key, lease.job_id) for _ in range(2)]
    listening = run_clients(clients)
    until(lambda: all(len(client.numbers) > 20 for client in clients), 60)
    replicas.one.stop(signal.SIGKILL)
    seen = [len(client.numbers) for client in clients]
    until(lambda: all(len(client.numbers) > before + 20 for client, before in zip(clients, seen, strict=True)), 60)
    writer.finish()
    listening.join(60)
    assert not listening.is_alive(), "every stream ends with its job"
    assert sorted(client.connections for client in clients) == [1, 2], "each replica had one of the streams"
    for client in clients:
        assert client.numbers == writer.event_numbers(lease.job_id)
