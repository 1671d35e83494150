"""docker/rotate_passwords.py with a stub `docker` that records its calls and fails at a given one."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

ROOT = Path(__file__).parents[2]
DOCKER = r"""#!/bin/bash
harness=${0%/bin/*}; call="${*:2}"
[ "$call" != version ] || exit 0
echo "$call" >>$harness/calls
[ "$(wc -l <$harness/calls)" != "$FAIL_AT" ] || exit 1
case "$call" in *psql*) cat >$harness/sql ;; esac
"""
ENV = """POSTGRES_PASSWORD=old-one-1
REDIS_PASSWORD=old-one-2
FRS_DATABASE_URL=postgresql://frs:old-one-1@postgres:5432/frs
FRS_BROKER_URL=redis://:old-one-2@redis:6379/0
GRAFANA_PASSWORD=kept
"""
STEPS = ["exec -T postgres pg_isready", "stop worker api", "exec -T postgres psql", "up --detach"]


@pytest.fixture
def harness(tmp_path):
    (tmp_path / "docker").mkdir()
    for name in ("backup.py", "env.py", "rotate_passwords.py"):
        shutil.copy(ROOT / "docker" / name, tmp_path / "docker")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "docker").write_text(DOCKER)
    (tmp_path / "bin" / "docker").chmod(0o755)
    (tmp_path / ".env").write_text(ENV)
    return tmp_path


def rotate(harness, fail_at=0):
    (harness / "calls").unlink(missing_ok=True)
    environment = os.environ | {"PATH": f"{harness / 'bin'}:{os.environ['PATH']}", "FAIL_AT": str(fail_at)}
    command = [sys.executable, harness / "docker" / "rotate_passwords.py"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def variables(harness):
    return dict(re.findall(r"(?m)^(\w+)=(.*)$", (harness / ".env").read_text()))


def assert_rotated(harness):
    env = variables(harness)
    assert "old-one" not in "".join(env.values()) and env["GRAFANA_PASSWORD"] == "kept"
    assert env["POSTGRES_PASSWORD"] != env["REDIS_PASSWORD"]
    assert (harness / "sql").read_text() == f"ALTER ROLE \"frs\" PASSWORD '{env['POSTGRES_PASSWORD']}';\n"
    assert env["FRS_DATABASE_URL"] == f"postgresql://frs:{env['POSTGRES_PASSWORD']}@postgres:5432/frs"
    assert env["FRS_BROKER_URL"] == f"redis://:{env['REDIS_PASSWORD']}@redis:6379/0"
    assert not (harness / ".env.next").exists()
    assert (harness / ".env").stat().st_mode & 0o777 == 0o600


def test_workers_stop_before_the_password_changes_and_start_after_it(harness):
    assert rotate(harness).returncode == 0
    assert_rotated(harness)
    assert all(
        call.startswith(step) for call, step in zip((harness / "calls").read_text().splitlines(), STEPS, strict=True)
    )


def test_no_password_is_on_a_command_line(harness):
    completed = rotate(harness)
    visible = (harness / "calls").read_text() + completed.stdout + completed.stderr
    env = variables(harness)
    assert env["POSTGRES_PASSWORD"] not in visible and env["REDIS_PASSWORD"] not in visible


@pytest.mark.parametrize("step", [2, 3, 4])
def test_an_interrupted_rotation_continues_with_the_next_call(harness, step):
    assert rotate(harness, fail_at=step).returncode == 1
    assert rotate(harness).returncode == 0
    assert_rotated(harness)


def test_a_role_of_api_and_workers_gets_a_password_of_its_own(harness):
    owner = ENV.replace("FRS_DATABASE_URL", "FRS_DATABASE_OWNER_URL")
    (harness / ".env").write_text(owner + "FRS_DATABASE_URL=postgresql://frs-app:frs@postgres:5432/frs\n")
    assert rotate(harness).returncode == 0
    env = variables(harness)
    urls = [urlsplit(env[name]) for name in ("FRS_DATABASE_OWNER_URL", "FRS_DATABASE_URL")]
    assert [url.username for url in urls] == ["frs", "frs-app"]
    assert urls[0].password == env["POSTGRES_PASSWORD"] != "old-one-1" and len(urls[1].password) > 20
    assert (harness / "sql").read_text() == "".join(
        f"ALTER ROLE \"{url.username}\" PASSWORD '{url.password}';\n" for url in urls
    )


def test_a_password_that_is_a_word_of_its_url_is_replaced_as_the_password_only(harness):
    text = ENV.replace("old-one-1", "postgres").replace("old-one-2", "redis")
    (harness / ".env").write_text(text)
    assert rotate(harness).returncode == 0
    env = variables(harness)
    assert env["FRS_DATABASE_URL"] == f"postgresql://frs:{env['POSTGRES_PASSWORD']}@postgres:5432/frs"
    assert env["FRS_BROKER_URL"] == f"redis://:{env['REDIS_PASSWORD']}@redis:6379/0"
    assert len(env["POSTGRES_PASSWORD"]) > 20 < len(env["REDIS_PASSWORD"])


@pytest.mark.parametrize("quote", ["'", '"'])
def test_quoted_values_stay_quoted_urls(harness, quote):
    (harness / ".env").write_text(re.sub(r"(?m)=(.*)$", rf"={quote}\1{quote}", ENV))
    assert rotate(harness).returncode == 0
    env = variables(harness)
    password = env["POSTGRES_PASSWORD"].strip(quote)
    assert env["FRS_DATABASE_URL"] == f"{quote}postgresql://frs:{password}@postgres:5432/frs{quote}"
    assert (harness / "sql").read_text() == f"ALTER ROLE \"frs\" PASSWORD '{password}';\n"


def test_a_missing_password_is_named(harness):
    (harness / ".env").write_text(ENV.replace("REDIS_PASSWORD", "OTHER"))
    completed = rotate(harness)
    assert completed.returncode == 1 and "FRS_BROKER_URL does not contain REDIS_PASSWORD" in completed.stderr


def test_passwords_of_another_server_are_not_changed(harness):
    text = ENV.replace("old-one-1@postgres", "of-the-first-host@10.0.0.1")
    (harness / ".env").write_text(text)
    completed = rotate(harness)
    assert completed.returncode == 1 and "FRS_DATABASE_URL does not contain POSTGRES_PASSWORD" in completed.stderr
    assert (harness / ".env").read_text() == text and not (harness / ".env.next").exists()
