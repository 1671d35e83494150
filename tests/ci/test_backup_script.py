"""docker/backup.py against a `docker` that remembers what it was asked for, and fails where it is told to."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCKER = r"""#!/bin/bash
house=${0%/bin/*}; said="${*:2}"
[ "$said" != version ] || exit 0
[ "$said" != config ] || { echo "      FRS_ARTIFACTS_URL: $(<$house/url)"; exit 0; }
echo "$said" >>$house/calls
case "$said" in *pg_restore*) cat >$house/dump ;; *restore-unpack*) cat >$house/files ;; esac
[ "$(wc -l <$house/calls)" != "$FAIL_AT" ] || exit 1
case "$said" in *pg_dump*) printf rows ;; *backup-pack*) printf files ;; esac
"""


@pytest.fixture
def house(tmp_path):
    (tmp_path / "docker").mkdir()
    shutil.copy(ROOT / "docker" / "backup.py", tmp_path / "docker")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "docker").write_text(DOCKER)
    (tmp_path / "bin" / "docker").chmod(0o755)
    (tmp_path / "url").write_text("/data/artifacts")
    (tmp_path / ".env").write_text("")
    return tmp_path


def script(house, action, folder, fail_at=0):
    (house / "calls").unlink(missing_ok=True)
    environment = os.environ | {"PATH": f"{house / 'bin'}:{os.environ['PATH']}", "FAIL_AT": str(fail_at)}
    command = [sys.executable, house / "docker" / "backup.py", action, folder]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def calls(house):
    return (house / "calls").read_text().splitlines()


def index(house, words):
    return next(number for number, call in enumerate(calls(house)) if words in call)


def test_without_an_env_it_says_what_to_do(house):
    (house / ".env").unlink()
    done = script(house, "backup", house / "monday")
    assert done.returncode == 1 and "make env" in done.stderr


def test_a_backup_holds_dump_artifacts_and_sums(house):
    assert script(house, "backup", house / "monday").returncode == 0
    assert sorted(path.name for path in (house / "monday").iterdir()) == [
        "artifacts.tar",
        "database.dump",
        "sha256sums",
    ]
    assert (house / "monday" / "database.dump").read_text() == "rows"
    assert (
        index(house, "backup-begin")
        < index(house, "pg_dump")
        < index(house, "backup-pack")
        < index(house, "backup-end")
    )


@pytest.mark.parametrize("fail_at", [1, 2, 3])
def test_a_backup_that_fails_leaves_nothing_and_ends_what_it_began(house, fail_at):
    done = script(house, "backup", house / "monday", fail_at)
    assert done.returncode == 1 and "failed" in done.stderr
    assert not list(house.glob("*monday*"))
    assert fail_at == 1 or "backup-end" in calls(house)[-1]


def test_a_backup_takes_no_name_twice(house):
    script(house, "backup", house / "monday")
    assert "already" in script(house, "backup", house / "monday").stderr


def test_artifacts_in_object_storage_are_not_in_it(house):
    (house / "url").write_text("s3://bucket/frs")
    assert script(house, "backup", house / "monday").returncode == 0
    assert not (house / "monday" / "artifacts.tar").exists()
    (house / "url").write_text("/data/artifacts")
    done = script(house, "restore", house / "monday")
    assert done.returncode == 1 and "FRS_ARTIFACTS_URL" in done.stderr


def test_a_restore_swaps_when_both_halves_are_whole(house):
    script(house, "backup", house / "monday")
    assert script(house, "restore", house / "monday").returncode == 0
    whole = max(index(house, "pg_restore"), index(house, "restore-unpack"))
    assert whole < index(house, "stop api worker") < index(house, "EXISTS frs WITH") < index(house, "RENAME TO frs")
    assert index(house, "RENAME TO frs") < index(house, "restore-replace")
    assert (house / "dump").read_text() == "rows" and (house / "files").read_text() == "files"


def test_a_restore_that_fails_anywhere_stops_there_and_the_next_one_goes_through(house):
    script(house, "backup", house / "monday")
    script(house, "restore", house / "monday")
    steps = calls(house)
    assert len(steps) > 8
    for fail_at in range(1, len(steps) + 1):
        if "pg_isready" in steps[fail_at - 1]:
            continue  # which is asked until it answers
        done = script(house, "restore", house / "monday", fail_at)
        assert done.returncode == 1 and "Restored" not in done.stdout, steps[fail_at - 1]
        begun = "".join(calls(house))
        if fail_at <= 1 + steps.index(next(step for step in steps if "restore-unpack" in step)):
            assert "EXISTS frs WITH" not in begun and "restore-replace" not in begun, "nothing has changed"
        assert script(house, "restore", house / "monday").returncode == 0


@pytest.mark.parametrize("name", ["database.dump", "artifacts.tar"])
def test_a_damaged_backup_changes_nothing(house, name):
    script(house, "backup", house / "monday")
    (house / "monday" / name).write_text("other")
    done = script(house, "restore", house / "monday")
    assert done.returncode == 1 and "damaged" in done.stderr
    assert not (house / "calls").exists()


def test_a_folder_that_is_no_backup_is_refused(house):
    done = script(house, "restore", house)
    assert done.returncode == 1 and "no backup" in done.stderr
