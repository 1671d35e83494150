"""PostgreSQL: `python -m store init` as the owner of the tables, and API and workers as a role that owns nothing."""

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import contextmanager

import pytest
from database_harness import OWNER, SERVICE, DatabaseHarness
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError

from frs.events import Metrics, Phase
from store.artifacts.storage import open_artifacts
from store.db import audit, schema
from store.db.audit import Actor
from store.db.database import open_database
from store.db.tables import AuditEntry, Base, Dataset, Job, Metric
from store.errors import DatabaseNotReady
from store.initialise import initialise
from store.jobs import actions, lifecycle, retention
from store.jobs.recording import record
from store.jobs.retention import Content, RetentionRules
from store.settings import Settings

ALICE = Actor("alice", "key_1")
MIGRATOR, APP = "migrator", "app-1"
CHANGES = {
    "update": "UPDATE audit SET owner = 'bob'",
    "delete": "DELETE FROM audit",
    "truncate": "TRUNCATE audit",
    "drop the trigger": "DROP TRIGGER audit_refuses_changes ON audit",
    "disable the trigger": "ALTER TABLE audit DISABLE TRIGGER ALL",
    "add a trigger": "CREATE TRIGGER t BEFORE INSERT ON audit EXECUTE FUNCTION refuse_change_of_audit()",
    "replace the function": "CREATE OR REPLACE FUNCTION refuse_change_of_audit() RETURNS trigger LANGUAGE plpgsql "
    "AS $$ BEGIN RETURN NULL; END $$",
    "disable triggers": "SET session_replication_role = replica",
    "drop the table": "DROP TABLE audit",
    "rename the table": "ALTER TABLE audit RENAME TO other",
    "become the owner": f"SET ROLE {MIGRATOR}",
    "create a table": "CREATE TABLE other (id int)",
    "change the revision": "UPDATE alembic_version SET version_num = '0001'",
}


@contextmanager
def opened(url: str):
    database = open_database(url)
    try:
        yield database
    finally:
        database.engine.dispose()


def execute(url: str, *statements: str) -> None:
    with opened(url) as database, database.engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT")
        for statement in statements:
            connection.execute(text(statement))


@pytest.fixture(scope="module")
def url_of(postgresql, tmp_path_factory) -> Callable[[str], str]:
    """A function that returns the URL, for a role, of a server with an empty database that belongs to `MIGRATOR`."""
    template = postgresql(tmp_path_factory.mktemp("none"))
    name = template.split("@/")[1].split("?")[0]

    def url_of(role: str, database: str = "roles") -> str:
        return template.replace(f"//{SERVICE}@", f"//{role}@").replace(f"/{name}?", f"/{database}?")

    roles = (f"CREATE ROLE {MIGRATOR} LOGIN", f'CREATE ROLE "{APP}" LOGIN')
    execute(url_of(OWNER, name), *roles)
    return url_of


@pytest.fixture
def settings(url_of, tmp_path) -> Settings:
    """Settings with both roles, for an empty database."""
    execute(
        url_of(OWNER, "postgres"),
        "DROP DATABASE IF EXISTS roles WITH (FORCE)",
        f"CREATE DATABASE roles OWNER {MIGRATOR}",
    )
    urls = {"database_owner_url": url_of(MIGRATOR), "database_url": url_of(APP)}
    return Settings(data=tmp_path / "data", **urls)


@pytest.fixture
def app(settings):
    """The harness of an initialised database, as the role that owns nothing."""
    initialise(settings)
    with opened(settings.database_url) as database:
        harness = DatabaseHarness(settings.database_url, database)
        paths = dict.fromkeys(("train_images", "train_annotations", "val_images", "val_annotations"), "x")
        harness.do(lambda session: session.add(Dataset(id="ds_shapes", name="shapes", **paths)))
        yield harness


def test_a_role_without_tables_runs_a_job_from_its_submission_to_its_removal(app, settings):
    lease = app.claim(app.submit(actor=ALICE))
    app.do(record, lease, [Phase(phase="training"), Metrics(step=1, epoch=1, values={"train/loss": 1.0})])
    assert app.rows(select(Metric.value)) == [1.0]
    assert app.do(lifecycle.finish, lease, "succeeded", "completed") == "succeeded"
    cancelled = app.submit(actor=ALICE)
    app.do(actions.cancel, cancelled, ALICE)
    with app.database.read() as session:
        groups = retention.expired_groups(session, rules := RetentionRules(0.0), [Content.JOBS])
    for job_id in groups:
        retention.clean_group(app.database, open_artifacts(settings), job_id, [Content.JOBS], rules, audit.RETENTION)
    assert app.rows(select(Job.id)) == []
    entries = {(entry.action, entry.owner) for entry in app.rows(select(AuditEntry))}
    assert entries >= {("key.create", "(setup)"), ("job.cancel", "alice"), ("job.delete", "(retention)")}


@pytest.mark.parametrize("change", CHANGES)
def test_the_role_can_neither_change_the_audit_trail_nor_what_protects_it(app, change):
    app.do(audit.record, ALICE, "job.cancel", ["job_1"])
    before = app.rows(select(AuditEntry.owner).order_by(AuditEntry.id))
    with pytest.raises(DBAPIError, match="permission denied|must be owner"):
        app.do(lambda session: session.execute(text(CHANGES[change])))
    assert app.rows(select(AuditEntry.owner).order_by(AuditEntry.id)) == before


def test_tables_of_later_revisions_get_the_same_rights(app, settings):
    with opened(settings.database_owner_url) as database:
        schema.downgrade(database, "0004")
    initialise(settings)
    rights = text("SELECT has_table_privilege(:table, :right)")
    for table in Base.metadata.tables:
        for right in ("SELECT", "INSERT", "UPDATE", "DELETE"):
            allowed = app.do(lambda session, **names: session.execute(rights, names).scalar(), table=table, right=right)
            assert allowed == (table != "audit" or right in ("SELECT", "INSERT")), (table, right)


def test_a_grant_of_an_earlier_time_on_the_audit_trail_is_revoked(app, settings):
    execute(settings.database_owner_url, f'GRANT UPDATE, DELETE ON audit TO "{APP}"')
    initialise(settings)
    with pytest.raises(DBAPIError, match="permission denied"):
        app.do(lambda session: session.execute(text("DELETE FROM audit")))


def test_the_role_needs_no_rights_on_tables_to_run_init_on_a_current_database(app, settings):
    initialise(settings.model_copy(update={"database_owner_url": None}))
    initialise(settings)
    schema.check(app.database)


def test_a_missing_migration_is_an_error_that_names_the_next_step(app, settings, tmp_path):
    with opened(settings.database_owner_url) as database:
        schema.downgrade(database, "0008")
    with pytest.raises(DatabaseNotReady, match="python -m store init"):
        schema.check(app.database)
    environment = {"FRS_DATA": str(tmp_path), "FRS_DATABASE_URL": settings.database_url, "PATH": os.environ["PATH"]}
    command = [sys.executable, "-m", "store", "init"]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert process.returncode == 1 and process.stderr.startswith("database_not_ready: ")
    assert "FRS_DATABASE_OWNER_URL" in process.stderr and "Traceback" not in process.stderr
    initialise(settings)
    schema.check(app.database)


@pytest.mark.parametrize(
    ("statement", "role"),
    [
        (None, OWNER),
        (None, MIGRATOR),
        (f'GRANT {MIGRATOR} TO "{APP}"', APP),
        ("GRANT DELETE ON audit TO PUBLIC", APP),
    ],
    ids=["superuser", "owner", "member of the owner", "rights of everybody"],
)
def test_a_role_that_could_change_the_audit_trail_all_the_same_is_refused(settings, url_of, statement, role):
    with opened(settings.database_owner_url) as database:
        schema.upgrade(database)
    if statement:
        execute(settings.database_owner_url if "GRANT DELETE" in statement else url_of(OWNER), statement)
    try:
        with pytest.raises(DatabaseNotReady, match=f"The role {role} .* can change the audit trail"):
            initialise(settings.model_copy(update={"database_url": url_of(role)}))
    finally:
        execute(url_of(OWNER), f'REVOKE {MIGRATOR} FROM "{APP}"')


def test_a_role_that_does_not_exist_is_an_error_with_the_statement_that_creates_it(settings, url_of):
    with pytest.raises(DatabaseNotReady, match="CREATE ROLE"):
        initialise(settings.model_copy(update={"database_url": url_of("nobody")}))


def test_urls_of_two_databases_are_an_error(settings, url_of):
    with pytest.raises(DatabaseNotReady, match="FRS_DATABASE_URL names the database postgres"):
        initialise(settings.model_copy(update={"database_url": url_of(APP, "postgres")}))


def test_the_owner_of_the_tables_is_for_postgresql_only(tmp_path):
    with pytest.raises(ValueError, match="FRS_DATABASE_OWNER_URL is for PostgreSQL"):
        Settings(data=tmp_path, database_owner_url="postgresql://frs@db/frs")
