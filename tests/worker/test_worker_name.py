"""Names of workers: they survive a restart, and two living workers never share one."""

import subprocess
import sys

from store.settings import Settings
from worker.dispatch import worker_name

TAKE_AND_WAIT = """
import sys
from pathlib import Path
from store.settings import Settings
from worker.dispatch.worker_name import take_name
print(take_name(Settings(data=Path(sys.argv[1]))), flush=True)
sys.stdin.read()
"""


def _start(folder):
    command = [sys.executable, "-c", TAKE_AND_WAIT, str(folder)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    return process, process.stdout.readline().strip()


def test_a_killed_worker_and_its_successor_have_the_same_name(tmp_path):
    process, name = _start(tmp_path)
    process.kill()
    process.wait()
    successor, same_name = _start(tmp_path)
    successor.communicate()
    assert name.startswith("worker-") and same_name == name


def test_two_living_workers_of_one_data_folder_have_different_names(tmp_path):
    (first, name), (second, other_name) = _start(tmp_path), _start(tmp_path)
    first.communicate()
    second.communicate()
    assert name != other_name


def test_a_name_of_the_settings_is_used_as_it_is(tmp_path):
    assert worker_name.take_name(Settings(data=tmp_path, worker_name="gpu-01")) == "gpu-01"
    assert not (tmp_path / "workers").exists()
