"""docker/backup.py with a stub `docker` that records its calls and fails at a given one."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCKER = r"""#!/bin/bash
harness=${0%/bin/*}; call="${*:2}"
[ "$call" != version ] || exit 0
[ "$call" != config ] || { echo "      FRS_ARTIFACTS_URL: $(<$harness/url)"; exit 0; }
echo "$call" >>$harness/calls
case "$call" in *pg_restore*) cat >$harness/dump ;; *restore-unpack*) cat >$harness/files ;; esac
[ "$(wc -l <$harness/calls)" != "$FAIL_AT" ] || exit 1
case "$call" in *pg_dump*) printf rows ;; *backup-pack*) printf files ;; esac
"""


@pytest.fixture
def harness(tmp_path):
    (tmp_path / "docker").mkdir()
    shutil.copy(ROOT / "docker" / "backup.py", tmp_path / "docker")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "docker").write_text(DOCKER)
    (tmp_path / "bin" / "docker").chmod(0o755)
    (tmp_path / "url").write_text("/data/artifacts")
    (tmp_path / ".env").write_text("")
    return tmp_path


def run_script(harness, action, folder, fail_at=0):
    (harness / "calls").unlink(missing_ok=True)
    environment = os.environ | {"PATH": f"{harness / 'bin'}:{os.environ['PATH']}", "FAIL_AT": str(fail_at)}
    command = [sys.executable, harness / "docker" / "backup.py", action, folder]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def calls(harness):
    return (harness / "calls").read_text().splitlines()


def index(harness, words):
    return next(number for number, call in enumerate(calls(harness)) if words in call)


def test_without_an_env_file_the_error_names_make_env(harness):
    (harness / ".env").unlink()
    completed = run_script(harness, "backup", harness / "monday")
    assert completed.returncode == 1 and "make env" in completed.stderr


def test_a_backup_contains_dump_artifacts_and_checksums(harness):
    assert run_script(harness, "backup", harness / "monday").returncode == 0
    assert sorted(path.name for path in (harness / "monday").iterdir()) == [
        "artifacts.tar",
        "database.dump",
        "sha256sums",
    ]
    assert (harness / "monday" / "database.dump").read_text() == "rows"
    assert (
        index(harness, "backup-begin")
        < index(harness, "pg_dump")
        < index(harness, "backup-pack")
        < index(harness, "backup-end")
    )


@pytest.mark.parametrize("fail_at", [1, 2, 3])
def test_a_failed_backup_leaves_no_files_and_calls_backup_end(harness, fail_at):
    completed = run_script(harness, "backup", harness / "monday", fail_at)
    assert completed.returncode == 1 and "failed" in completed.stderr
    assert not list(harness.glob("*monday*"))
    assert fail_at == 1 or "backup-end" in calls(harness)[-1]


def test_a_backup_does_not_overwrite_an_existing_one(harness):
    run_script(harness, "backup", harness / "monday")
    assert "already" in run_script(harness, "backup", harness / "monday").stderr


def test_artifacts_in_object_storage_are_not_part_of_a_backup(harness):
    (harness / "url").write_text("s3://bucket/frs")
    assert run_script(harness, "backup", harness / "monday").returncode == 0
    assert not (harness / "monday" / "artifacts.tar").exists()
    (harness / "url").write_text("/data/artifacts")
    completed = run_script(harness, "restore", harness / "monday")
    assert completed.returncode == 1 and "FRS_ARTIFACTS_URL" in completed.stderr


def test_a_restore_replaces_the_data_after_both_parts_are_loaded(harness):
    run_script(harness, "backup", harness / "monday")
    assert run_script(harness, "restore", harness / "monday").returncode == 0
    assert "--no-acl" in calls(harness)[index(harness, "pg_restore")], "roles of the dump may not exist here"
    loaded = max(index(harness, "pg_restore"), index(harness, "restore-unpack"))
    assert (
        loaded < index(harness, "stop api worker") < index(harness, "EXISTS frs WITH") < index(harness, "RENAME TO frs")
    )
    assert index(harness, "RENAME TO frs") < index(harness, "restore-replace")
    assert (harness / "dump").read_text() == "rows" and (harness / "files").read_text() == "files"


def test_a_restore_stops_at_a_failure_and_the_next_restore_succeeds(harness):
    run_script(harness, "backup", harness / "monday")
    run_script(harness, "restore", harness / "monday")
    steps = calls(harness)
    assert len(steps) > 8
    for fail_at in range(1, len(steps) + 1):
        if "pg_isready" in steps[fail_at - 1]:
            continue  # retried until PostgreSQL answers
        completed = run_script(harness, "restore", harness / "monday", fail_at)
        assert completed.returncode == 1 and "Restored" not in completed.stdout, steps[fail_at - 1]
        commands = "".join(calls(harness))
        if fail_at <= 1 + steps.index(next(step for step in steps if "restore-unpack" in step)):
            assert "EXISTS frs WITH" not in commands and "restore-replace" not in commands, "nothing has changed"
        assert run_script(harness, "restore", harness / "monday").returncode == 0


@pytest.mark.parametrize("name", ["database.dump", "artifacts.tar"])
def test_a_damaged_backup_changes_nothing(harness, name):
    run_script(harness, "backup", harness / "monday")
    (harness / "monday" / name).write_text("other")
    completed = run_script(harness, "restore", harness / "monday")
    assert completed.returncode == 1 and "damaged" in completed.stderr
    assert not (harness / "calls").exists()


def test_a_folder_without_a_backup_is_refused(harness):
    completed = run_script(harness, "restore", harness)
    assert completed.returncode == 1 and "no backup" in completed.stderr
