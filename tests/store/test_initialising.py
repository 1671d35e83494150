import stat
import subprocess
import sys

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from pydantic import ValidationError
from sqlalchemy import select, update

from api.context import open_context
from store.db import api_keys, schema
from store.db.database import open_database
from store.db.tables import ApiKey, Base, Checkpoint, Detector, Job, Metric
from store.errors import DatabaseNotReady
from store.initialise import initialise
from store.settings import Settings

INIT = [sys.executable, "-m", "store", "init"]


@pytest.fixture
def settings(tmp_path):
    return Settings(data=tmp_path / "data")


def stored_keys(settings):
    with open_database(settings.database_url).read() as session:
        return session.scalars(select(ApiKey)).all()


def test_init_creates_folders_tables_and_a_key_that_only_its_owner_can_read(settings):
    initialise(settings)
    assert stat.S_IMODE(settings.api_key_file.stat().st_mode) == 0o600
    assert stat.S_IMODE((settings.data / "frs.db").stat().st_mode) == 0o600
    token = settings.api_key_file.read_text().strip()
    assert len(token) > 43 and token.startswith("frs_")
    [key] = stored_keys(settings)
    assert key.sha256 == api_keys.token_digest(token) and token.startswith(key.prefix)
    assert all(folder.is_dir() for folder in (settings.artifacts_root, settings.work_root, settings.datasets_root))


def test_the_key_is_neither_in_the_database_nor_printed(settings):
    process = subprocess.run(INIT, env={"FRS_DATA": str(settings.data)}, capture_output=True, text=True, check=True)
    token = settings.api_key_file.read_text().strip()
    secret = token.removeprefix("frs_")
    assert secret not in process.stdout + process.stderr
    assert not [file for file in settings.data.glob("frs.db*") if secret.encode() in file.read_bytes()]


def test_init_is_idempotent(settings):
    initialise(settings)
    token = settings.api_key_file.read_text()
    initialise(settings)
    assert settings.api_key_file.read_text() == token
    assert len(stored_keys(settings)) == 1


def test_an_existing_key_file_works_with_a_new_database(settings):
    settings.data.mkdir()
    settings.api_key_file.write_text("frs_from_elsewhere\n")
    initialise(settings)
    with open_database(settings.database_url).read() as session:
        assert api_keys.find(session, "frs_from_elsewhere")
        assert api_keys.find(session, "frs_another") is None


def test_a_revoked_key_is_invalid_and_stays_revoked_after_init(settings):
    initialise(settings)
    token = settings.api_key_file.read_text().strip()
    with open_database(settings.database_url).write() as session:
        api_keys.find(session, token).revoked_at = 1.0
        session.commit()
        initialise(settings)
        assert api_keys.find(session, token) is None


def test_the_key_of_prometheus_is_registered_once_with_the_scope_metrics_only(settings, tmp_path):
    (tmp_path / "metrics-key").write_text("frs_of_prometheus\n")
    settings = settings.model_copy(update={"metrics_key_file": tmp_path / "metrics-key"})
    initialise(settings)
    initialise(settings)
    first, metrics = stored_keys(settings)
    assert first.scopes == ["admin"] and metrics.scopes == ["metrics"] and metrics.name == "prometheus"


def test_a_missing_key_of_prometheus_is_reported_and_prevents_nothing(settings):
    variables = {"FRS_DATA": str(settings.data), "FRS_METRICS_KEY_FILE": "/nowhere/key"}
    process = subprocess.run(INIT, env=variables, capture_output=True, text=True, check=True)
    assert "no metrics key in /nowhere/key: run `make env`" in process.stderr and len(stored_keys(settings)) == 1


def test_init_can_run_in_several_processes_concurrently(settings):
    processes = [subprocess.Popen(INIT, env={"FRS_DATA": str(settings.data)}) for _ in range(4)]
    assert [process.wait(timeout=60) for process in processes] == [0] * 4
    assert len(stored_keys(settings)) == 1


LEFT_TO_OTHER_VERSIONS = {
    *("remove_index ix_errands_status_created_at", "remove_table errands"),
    *("remove_column jobs.forgiven", "remove_column workers.slots", "remove_column workers.lacks"),
    *("remove_column datasets.report", "remove_column sweeps.teacher_job_id"),
}
"""Tables and columns that this version no longer uses, and that a process of the previous version still uses."""


def _name(difference):
    operation, *details = difference
    if operation == "remove_column":
        return f"{operation} {details[1]}.{details[2].name}"
    return f"{operation} {details[0].name}"


def test_migrations_create_the_tables_of_the_code(harness):
    with harness.database.engine.connect() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), Base.metadata)
    assert {_name(difference) for difference in differences} == LEFT_TO_OTHER_VERSIONS


def test_migrations_go_down_and_up_again(harness):
    with harness.owned() as database:
        schema.downgrade(database, "base")
        with pytest.raises(DatabaseNotReady):
            schema.check(database)
        schema.upgrade(database)
        schema.check(database)
        with database.read() as session:
            assert session.scalars(select(Metric)).all() == []


def test_students_that_were_registered_before_revision_0012_get_their_sizes(harness):
    job_id = harness.submit()
    student = {"job_id": job_id, "key": f"{job_id}/student", "sha256": "0" * 64}
    checkpoint = Checkpoint(attempt=1, kind="student", labels=[], step=1, epoch=1, bytes=10**10, metrics={}, **student)
    registered = Detector(name="small", description={}, weights_key=student["key"], job_id=job_id, sha256="0" * 64)
    in_models = Detector(name="file", description={}, weights_file="w.pth", sha256="0" * 64)
    harness.do(lambda session: session.add_all([checkpoint, registered, in_models]))
    with harness.owned() as database:
        schema.downgrade(database, "0011")
        schema.upgrade(database)
    assert harness.rows(select(Detector.bytes).order_by(Detector.name)) == [None, 10**10]


def test_a_database_of_a_later_revision_is_accepted(harness):
    with harness.owned() as database, database.engine.connect() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()
    schema.check(harness.database)


def test_an_empty_database_is_not_ready(tmp_path):
    with pytest.raises(DatabaseNotReady, match="python -m store init"):
        schema.check(open_database(f"sqlite:///{tmp_path / 'empty.db'}"))


def test_all_files_are_below_the_data_folder_by_default(tmp_path, monkeypatch):
    monkeypatch.setenv("FRS_DATA", str(tmp_path / "a folder"))
    monkeypatch.setenv("FRS_ARTIFACTS_URL", "/elsewhere/artifacts")
    settings = Settings()
    assert settings.database_url == f"sqlite:///{tmp_path}/a folder/frs.db"
    assert settings.models_root == tmp_path / "a folder" / "models"
    assert str(settings.artifacts_root) == "/elsewhere/artifacts"
    monkeypatch.delenv("FRS_ARTIFACTS_URL")
    assert Settings().artifacts_root == tmp_path / "a folder" / "artifacts"


def test_artifacts_in_object_storage_need_no_folder(tmp_path):
    initialise(Settings(data=tmp_path, artifacts_url="s3://bucket/prefix"))
    assert not (tmp_path / "artifacts").exists()


def test_the_repr_of_settings_contains_no_password():
    settings = Settings(database_url="postgresql://me:secret@host/frs", broker_url="redis://:secret@host")
    assert "secret" not in repr(settings)


@pytest.mark.parametrize(("name", "scheme"), [("database_url", "postgresql"), ("broker_url", "redis")])
def test_the_example_password_is_invalid_and_the_error_does_not_show_the_url(tmp_path, name, scheme):
    with pytest.raises(ValidationError, match="run `make env`") as error:
        Settings(data=tmp_path, **{name: f"{scheme}://frs:change-me@somewhere/0"})
    assert "somewhere" not in str(error.value)


def test_the_first_key_can_come_from_a_read_only_file(settings, tmp_path):
    key_file = tmp_path / "given"
    key_file.write_text("frs_given\n")
    key_file.chmod(0o444)
    initialise(settings.model_copy(update={"api_key_file": key_file}))
    with open_database(settings.database_url).read() as session:
        assert api_keys.find(session, "frs_given")
    assert not (settings.data / "api-key").exists()


def test_init_prints_invalid_settings_in_one_line(tmp_path):
    environment = {"FRS_DATA": str(tmp_path), "FRS_BROKER_URL": "redis://:change-me@redis/0"}
    process = subprocess.run(INIT, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert process.returncode == 1
    assert "make env" in process.stderr and "Traceback" not in process.stderr


def test_input_folders_outside_the_data_folder_are_not_created(tmp_path):
    settings = Settings(data=tmp_path / "data", datasets_root=tmp_path / "elsewhere")
    initialise(settings)
    assert not settings.datasets_root.exists() and settings.models_root.is_dir()


def test_a_fence_after_the_end_of_the_lease_is_invalid():
    with pytest.raises(ValueError, match="fence_seconds < lease_seconds"):
        Settings(fence_seconds=90)


def test_the_store_does_not_import_torch():
    modules = ("artifacts.storage", "jobs.lifecycle", "jobs.recording", "scheduling.waiting", "initialise")
    imports = ", ".join(f"store.{module}" for module in modules)
    code = f"import sys, {imports}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize(
    ("schedule", "epochs"),
    [({"max_steps": 3_000_000_000}, 12), ({"max_steps": 9, "epochs": 3}, 3), ({"epochs": 4}, 4), ({}, None)],
)
def test_an_upgrade_keeps_the_length_of_stored_jobs(harness, schedule, epochs):
    job_id = harness.submit()
    spec = harness.job(job_id).spec
    stored = spec | {"schedule": spec["schedule"] | {"epochs": None} | schedule}
    harness.do(lambda session: session.execute(update(Job).values(spec=stored)))
    with harness.owned() as database:
        schema.downgrade(database, "0004")
        schema.upgrade(database)
    assert harness.job(job_id).spec["schedule"]["epochs"] == epochs
    assert harness.job(job_id).spec["schedule"]["max_steps"] == schedule.get("max_steps")


@pytest.mark.parametrize("url", ["postgresql://frs:secret@127.0.0.1:1/frs", "sqlite:////nowhere/frs.db"])
@pytest.mark.parametrize("start", [initialise, open_context])
def test_a_database_that_cannot_be_reached_is_reported_with_the_reason(tmp_path, url, start):
    with pytest.raises(DatabaseNotReady, match="cannot be reached: .*(refused|unable to open)") as caught:
        start(Settings(data=tmp_path, database_url=url))
    assert "secret" not in str(caught.value) and "store settings" in caught.value.hint
