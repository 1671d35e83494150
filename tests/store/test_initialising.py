import stat
import subprocess
import sys

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from pydantic import ValidationError
from sqlalchemy import select

from store.db import api_keys, schema
from store.db.database import open_database
from store.db.tables import ApiKey, Base, Metric
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


def test_init_makes_folders_tables_and_a_key_only_its_owner_can_read(settings):
    initialise(settings)
    assert stat.S_IMODE(settings.api_key_file.stat().st_mode) == 0o600
    token = settings.api_key_file.read_text().strip()
    assert len(token) > 43 and token.startswith("frs_")
    [key] = stored_keys(settings)
    assert key.sha256 == api_keys.token_digest(token) and token.startswith(key.prefix)
    assert all(folder.is_dir() for folder in (settings.artifacts_root, settings.work_root, settings.datasets_root))


def test_the_key_is_not_in_the_database_nor_printed(settings):
    done = subprocess.run(INIT, env={"FRS_DATA": str(settings.data)}, capture_output=True, text=True, check=True)
    token = settings.api_key_file.read_text().strip()
    secret = token.removeprefix("frs_")
    assert secret not in done.stdout + done.stderr
    assert not [file for file in settings.data.glob("frs.db*") if secret.encode() in file.read_bytes()]


def test_init_again_changes_nothing(settings):
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


def test_a_revoked_key_opens_nothing_and_stays_revoked(settings):
    initialise(settings)
    token = settings.api_key_file.read_text().strip()
    with open_database(settings.database_url).write() as session:
        api_keys.find(session, token).revoked_at = 1.0
        session.commit()
        initialise(settings)
        assert api_keys.find(session, token) is None


def test_init_in_several_processes_at_once(settings):
    started = [subprocess.Popen(INIT, env={"FRS_DATA": str(settings.data)}) for _ in range(4)]
    assert [process.wait(timeout=60) for process in started] == [0] * 4
    assert len(stored_keys(settings)) == 1


LEFT_BY_0004 = {
    *("remove_index ix_errands_status_created_at", "remove_table errands"),
    *("remove_column jobs.forgiven", "remove_column workers.slots", "remove_column workers.lacks"),
    "remove_column datasets.report",
}
"""What the revision replaced and a worker of the version before still uses."""


def _name(difference):
    operation, *about = difference
    return f"{operation} {about[1]}.{about[2].name}" if operation == "remove_column" else f"{operation} {about[0].name}"


def test_migrations_make_the_tables_of_the_code(harness):
    with harness.database.engine.connect() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), Base.metadata)
    assert {_name(difference) for difference in differences} == LEFT_BY_0004


def test_migrations_go_down_and_up_again(harness):
    schema.downgrade(harness.database, "base")
    with pytest.raises(DatabaseNotReady):
        schema.check(harness.database)
    schema.upgrade(harness.database)
    schema.check(harness.database)
    assert harness.rows(select(Metric)) == []


def test_a_later_version_s_database_is_good_enough(harness):
    with harness.database.engine.connect() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()
    schema.check(harness.database)


def test_an_empty_database_is_not_ready(tmp_path):
    with pytest.raises(DatabaseNotReady, match="python -m store init"):
        schema.check(open_database(f"sqlite:///{tmp_path / 'empty.db'}"))


def test_everything_lies_under_the_data_folder_unless_told_otherwise(tmp_path, monkeypatch):
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


def test_artifacts_are_kept_nowhere_else(tmp_path):
    with pytest.raises(ValueError, match="gs://"):
        initialise(Settings(data=tmp_path, artifacts_url="gs://bucket"))


def test_settings_never_show_a_password():
    settings = Settings(database_url="postgresql://me:secret@host/frs", broker_url="redis://:secret@host")
    assert "secret" not in repr(settings)


@pytest.mark.parametrize("name", ["database_url", "broker_url"])
def test_the_password_of_the_example_is_refused_without_being_shown(tmp_path, name):
    with pytest.raises(ValidationError, match="run `make env`") as refused:
        Settings(data=tmp_path, **{name: "redis://frs:change-me@somewhere/0"})
    assert "somewhere" not in str(refused.value)


def test_the_first_key_can_come_from_a_file_that_cannot_be_written(settings, tmp_path):
    given = tmp_path / "given"
    given.write_text("frs_given\n")
    given.chmod(0o444)
    initialise(settings.model_copy(update={"api_key_file": given}))
    with open_database(settings.database_url).read() as session:
        assert api_keys.find(session, "frs_given")
    assert not (settings.data / "api-key").exists()


def test_init_says_in_a_line_why_it_does_not_start(tmp_path):
    environment = {"FRS_DATA": str(tmp_path), "FRS_BROKER_URL": "redis://:change-me@redis/0"}
    done = subprocess.run(INIT, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "make env" in done.stderr and "Traceback" not in done.stderr


def test_folders_of_data_that_lie_elsewhere_are_not_made(tmp_path):
    settings = Settings(data=tmp_path / "data", datasets_root=tmp_path / "elsewhere")
    initialise(settings)
    assert not settings.datasets_root.exists() and settings.models_root.is_dir()


def test_a_fence_that_falls_after_the_lease_ends_is_refused():
    with pytest.raises(ValueError, match="fence_seconds < lease_seconds"):
        Settings(fence_seconds=90)


def test_the_store_needs_no_torch():
    modules = "store.artifacts.storage, store.jobs.lifecycle, store.jobs.recording, store.scheduling.waiting, store.initialise"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
