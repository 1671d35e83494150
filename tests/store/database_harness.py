"""Fixtures for tests on a database: SQLite and, if its binaries are installed, a temporary PostgreSQL server."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from servers import Postgres, postgres_binaries, temporary_folder
from sqlalchemy import Select, select

from frs.spec import JobSpec
from store.db import grants
from store.db.database import Database, open_database
from store.db.schema import upgrade
from store.db.tables import Dataset, Event, Job
from store.jobs import lifecycle
from store.jobs.lease import Lease

SPEC = JobSpec.model_validate(
    {"kind": "train", "dataset": "shapes", "student": {"architecture": "gfl"}, "schedule": {"epochs": 1}}
)

SERVICE, OWNER = "service", "postgres"
"""Roles on PostgreSQL: that of API and workers, which tests use, and that of the owner of the tables."""
NewDatabase = Callable[[Path], str]
"""Create a migrated, empty database, in the given folder if it is a file; return its URL."""


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a new database of each kind."""
    new_database: NewDatabase = request.getfixturevalue(request.param)
    return new_database(tmp_path)


@pytest.fixture(scope="session")
def sqlite(tmp_path_factory: pytest.TempPathFactory) -> NewDatabase:
    """A function that copies a migrated SQLite file."""
    template = tmp_path_factory.mktemp("template") / "frs.db"
    migrate(f"sqlite:///{template}")

    def new_database(folder: Path) -> str:
        return f"sqlite:///{shutil.copyfile(template, folder / 'frs.db')}"

    return new_database


@pytest.fixture(scope="session")
def postgresql() -> Iterator[NewDatabase]:
    """A function that creates databases on a temporary PostgreSQL server and returns their URLs for `SERVICE`."""
    if postgres_binaries() is None:
        pytest.skip("PostgreSQL is not installed in /usr/lib/postgresql")
    with temporary_folder("frs-postgresql-") as folder, Postgres(folder, "fsync=off") as server:
        migrate(server.url)
        server.sql(f"CREATE ROLE {SERVICE} LOGIN")
        owner, service = open_database(server.url), open_database(server.url_of("frs", SERVICE))
        grants.grant(owner, service)
        owner.engine.dispose()
        service.engine.dispose()
        numbers = count()

        def new_database(_: Path) -> str:
            name = f"test_{next(numbers)}"
            server.sql(f"CREATE DATABASE {name} TEMPLATE frs", "postgres")
            return server.url_of(name, SERVICE)

        yield new_database


def migrate(url: str) -> None:
    """Create the tables."""
    database = open_database(url)
    upgrade(database)
    database.engine.dispose()


@pytest.fixture
def harness(url: str) -> Iterator["DatabaseHarness"]:
    """A database with one data set, `ds_shapes`."""
    harness = DatabaseHarness(url, open_database(url))
    paths = dict.fromkeys(("train_images", "train_annotations", "val_images", "val_annotations"), "x")
    harness.do(lambda session: session.add(Dataset(id="ds_shapes", name="shapes", **paths)))
    yield harness
    harness.database.engine.dispose()


@dataclass(frozen=True)
class DatabaseHarness:
    """A database and the operations that tests perform on it."""

    url: str
    database: Database

    @contextmanager
    def owned(self) -> Iterator[Database]:
        """Open the database as the owner of its tables."""
        database = open_database(self.url.replace(f"//{SERVICE}@", f"//{OWNER}@"))
        try:
            yield database
        finally:
            database.engine.dispose()

    def do(self, function: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
        """Call `function(session, ...)`, commit, and return the result."""
        with self.database.write() as session:
            result = function(session, *arguments, **keywords)
            session.commit()
        return result

    @contextmanager
    def uncommitted(self, function: Callable[..., Any], *arguments: Any) -> Iterator[Callable[[], None]]:
        """Call `function(session, ...)` without a commit; yield the function that commits."""
        with self.database.write() as session:
            function(session, *arguments)
            yield session.commit

    def submit(self, **references: Any) -> str:
        """Add a job and return its id."""
        return self.do(lifecycle.add, SPEC, dataset_id="ds_shapes", **references).id

    def claim(self, job_id: str | None = None, seconds: float = 60) -> Lease:
        """Claim that job, or the next one."""
        lease = self.do(lifecycle.claim, "worker", seconds, job_id)
        assert lease is not None
        return lease

    def start(self) -> Lease:
        """Add a job and claim it."""
        return self.claim(self.submit())

    def job(self, job_id: str) -> Job:
        """Read the job."""
        return self.rows(select(Job).where(Job.id == job_id))[0]

    def rows(self, query: Select[Any]) -> Sequence[Any]:
        """Return the first column of the query's rows."""
        with self.database.read() as session:
            return session.scalars(query).all()

    def history(self, job_id: str) -> list[str]:
        """Return the statuses that the job has had, in order."""
        events = self.rows(select(Event).where(Event.job_id == job_id).order_by(Event.seq))
        return [event.data["status"] for event in events if event.type == "status"]
