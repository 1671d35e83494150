"""URLs of the database, the broker and the artifacts are checked when the settings are read."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from store.settings import Settings
from store.settings_report import invalid_settings

DATABASE = "must be sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME"
BROKER = "must be redis://HOST/NUMBER or filesystem://"
ARTIFACTS = (
    "must be a folder, file:///FOLDER or s3://BUCKET/PREFIX, with the credentials of S3 in AWS_ACCESS_KEY_ID and so on"
)
INVALID = {
    "database_url": (
        DATABASE,
        *("nonsense", "mysql://secret/frs", "postgres://secret@db/frs", "sqlite://", "sqlite:///:memory:"),
        *("postgresql://db:secret/frs", "postgresql+asyncpg://secret@db/frs"),
    ),
    "broker_url": (BROKER, "nonsense", "amqp://secret", "redis://redis:secret/0", "redis://[secret/0"),
    "artifacts_url": (
        ARTIFACTS,
        *("gs://secret", "file://relative/secret", "file:secret", "file:///folder#secret", "s3:///secret"),
        *("s3://key:secret@bucket/x", "s3://bucket/x?secret=1", "s3://[secret"),
    ),
}
VALID = {
    "database_url": (
        *("sqlite:///relative.db", "postgresql://frs:p%2Fw@[::1]:5432/frs", "postgresql:///frs?host=/run/postgresql"),
        "postgresql+psycopg://frs:raw/password@db/frs",
    ),
    "broker_url": ("filesystem://", "redis://:p%2Fw@redis:6379/0", "rediss://redis"),
    "artifacts_url": ("/srv/a", "relative", "file:///srv/a", "file://localhost/srv/a", "s3://bucket", "s3://b/c d"),
}


@pytest.mark.parametrize(
    ("name", "form", "url"), [(name, urls[0], url) for name, urls in INVALID.items() for url in urls[1:]]
)
def test_an_invalid_url_is_refused_by_variable_with_the_valid_forms(name, form, url):
    with pytest.raises(ValidationError) as error:
        Settings(**{name: url})
    message = invalid_settings(error.value)
    assert message == f"FRS_{name.upper()}: {form}"


def test_the_owners_url_of_the_database_has_the_same_forms():
    with pytest.raises(ValidationError) as error:
        Settings(database_url="postgresql://frs@db/frs", database_owner_url="postgres://frs@db/frs")
    assert invalid_settings(error.value) == f"FRS_DATABASE_OWNER_URL: {DATABASE}"


@pytest.mark.parametrize(("name", "url"), [(name, url) for name, urls in VALID.items() for url in urls])
def test_a_valid_url_is_unchanged(name, url):
    assert getattr(Settings(**{name: url}), name) == url


@pytest.mark.parametrize(("url", "root"), [("file://localhost/srv/a%20b", "/srv/a b"), ("/srv/a?b#c", "/srv/a?b#c")])
def test_a_folder_and_its_url_name_the_same_files(url, root):
    assert Settings(artifacts_url=url).artifacts_root == Path(root)


@pytest.mark.parametrize("command", [("store", "init"), ("worker", "--once"), ("api",)])
def test_commands_name_the_variable_in_one_line(command, tmp_path):
    environment = {"PATH": os.environ["PATH"], "FRS_DATA": str(tmp_path), "FRS_ARTIFACTS_URL": "file://relative/x"}
    process = subprocess.run(
        [sys.executable, "-m", *command], env=environment, capture_output=True, text=True, check=False
    )
    assert process.returncode == 1 and process.stderr == f"FRS_ARTIFACTS_URL: {ARTIFACTS}\n"
