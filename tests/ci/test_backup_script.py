"""docker/backup.py against a `docker` that remembers what it was asked for, and fails where it is told to."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCKER = r"""#!/bin/bash
harness=${0%/bin/*}; said="${*:2}"
[ "$said" != version ] || exit 0
[ "$said" != config ] || { echo "      FRS_ARTIFACTS_URL: $(<$harness/url)"; exit 0; }
echo "$said" >>$harness/calls
case "$said" in *pg_restore*) cat >$harness/dump ;; *restore-unpack*) cat >$harness/files ;; esac
[ "$(wc -l <$harness/calls)" != "$FAIL_AT" ] || exit 1
case "$said" in *pg_dump*) printf rows ;; *backup-pack*) printf files ;; esac
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


def script(harness, action, folder, fail_at=0):
    (harness / "calls").unlink(missing_ok=True)
    environment = os.environ | {"PATH": f"{harness / 'bin'}:{os.environ['PATH']}", "FAIL_AT": str(fail_at)}
    command = [sys.executable, harness / "docker" / "backup.py", action, folder]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def calls(harness):
    return (harness / "calls").read_text().splitlines()


def index(harness, words):
    return next(number for number, call in enumerate(calls(harness)) if words in call)


def test_without_an_env_it_says_what_to_do(harness):
    (harness / ".env").unlink()
    done = script(harness, "backup", harness / "monday")
    assert done.returncode == 1 and "make env" in done.stderr


def test_a_backup_holds_dump_artifacts_and_sums(harness):
    assert script(harness, "backup", harness / "monday").returncode == 0
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
def test_a_backup_that_fails_leaves_nothing_and_ends_what_it_began(harness, fail_at):
    done = script(harness, "backup", harness / "monday", fail_at)
    assert done.returncode == 1 and "failed" in done.stderr
    assert not list(harness.glob("*monday*"))
    assert fail_at == 1 or "backup-end" in calls(harness)[-1]


def test_a_backup_takes_no_name_twice(harness):
    script(harness, "backup", harness / "monday")
    assert "already" in script(harness, "backup", harness / "monday").stderr


def test_artifacts_in_object_storage_are_not_in_it(harness):
    (harness / "url").write_text("s3://bucket/frs")
    assert script(harness, "backup", harness / "monday").returncode == 0
    assert not (harness / "monday" / "artifacts.tar").exists()
    (harness / "url").write_text("/data/artifacts")
    done = script(harness, "restore", harness / "monday")
    assert done.returncode == 1 and "FRS_ARTIFACTS_URL" in done.stderr


def test_a_restore_swaps_when_both_halves_are_whole(harness):
    script(harness, "backup", harness / "monday")
    assert script(harness, "restore", harness / "monday").returncode == 0
    whole = max(index(harness, "pg_restore"), index(harness, "restore-unpack"))
    assert (
        whole < index(harness, "stop api worker") < index(harness, "EXISTS frs WITH") < index(harness, "RENAME TO frs")
    )
    assert index(harness, "RENAME TO frs") < index(harness, "restore-replace")
    assert (harness / "dump").read_text() == "rows" and (harness / "files").read_text() == "files"


def test_a_restore_that_fails_anywhere_stops_there_and_the_next_one_goes_through(harness):
    script(harness, "backup", harness / "monday")
    script(harness, "restore", harness / "monday")
    steps = calls(harness)
    assert len(steps) > 8
    for fail_at in range(1, len(steps) + 1):
        if "pg_isready" in steps[fail_at - 1]:
            continue  # which is asked until it answers
        done = script(harness, "restore", harness / "monday", fail_at)
        assert done.returncode == 1 and "Restored" not in done.stdout, steps[fail_at - 1]
        begun = "".join(calls(harness))
        if fail_at <= 1 + steps.index(next(step for step in steps if "restore-unpack" in step)):
            assert "EXISTS frs WITH" not in begun and "restore-replace" not in begun, "nothing has changed"
        assert script(harness, "restore", harness / "monday").returncode == 0


@pytest.mark.parametrize("name", ["database.dump", "artifacts.tar"])
def test_a_damaged_backup_changes_nothing(harness, name):
    script(harness, "backup", harness / "monday")
    (harness / "monday" / name).write_text("other")
    done = script(harness, "restore", harness / "monday")
    assert done.returncode == 1 and "damaged" in done.stderr
    assert not (harness / "calls").exists()


def test_a_folder_that_is_no_backup_is_refused(harness):
    done = script(harness, "restore", harness)
    assert done.returncode == 1 and "no backup" in done.stderr
