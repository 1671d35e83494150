"""Fixtures: both clients under one set of tests, and an API process without a worker."""

import asyncio
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from servers import ApiProcess

from frs.dataset.shapes.drawing import draw_dataset
from frs_client import AsyncClient, Client
from frs_client.aio import transport as async_transport
from frs_client.sync import transport as sync_transport
from store.initialise import initialise
from store.settings import Settings


class Blocking:
    """An asynchronous client, or a resource of one, whose methods are called like those of the synchronous one."""

    def __init__(self, target: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._target, self._loop = target, loop

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._target, name)
        if inspect.isasyncgenfunction(value):
            return lambda *args, **options: self._iterate(value(*args, **options))
        if inspect.iscoroutinefunction(value):
            return lambda *args, **options: self._loop.run_until_complete(value(*args, **options))
        return Blocking(value, self._loop)

    def _iterate(self, rows: Any) -> Iterator[Any]:
        while (row := self._loop.run_until_complete(anext(rows, None))) is not None:
            yield row


@pytest.fixture(params=["sync", "async"])
def connect(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """Return a function that makes a client; each test runs with the synchronous and with the asynchronous one."""
    if request.param == "sync":
        yield Client
        return
    with asyncio.Runner() as runner:
        yield lambda *args, **options: Blocking(AsyncClient(*args, **options), runner.get_loop())


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for the idempotency keys of unanswered requests."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses in seconds that a client would have made between requests; it makes none."""
    made: list[float] = []

    async def pause(seconds: float) -> None:
        made.append(seconds)

    monkeypatch.setattr(sync_transport, "sleep", made.append)
    monkeypatch.setattr(async_transport, "a_sleep", pause)
    return made


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiProcess]:
    """An API process with the folder of a data set, `shapes`."""
    settings = Settings(data=tmp_path_factory.mktemp("service") / "data")
    initialise(settings)
    draw_dataset(settings.datasets_root / "shapes", train=4, val=2, size=64)
    with ApiProcess(settings) as api:
        yield api


@pytest.fixture
def client(connect: Callable[..., Any], service: ApiProcess) -> Any:
    """A client of the process, which has the data set `shapes`."""
    client = connect(service.url, service.key)
    if "shapes" not in {dataset.name for dataset in client.datasets.list()}:
        client.datasets.register("shapes")
    return client
