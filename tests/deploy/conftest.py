"""Fixtures of the tests of schedulers: a service whose workers Slurm starts."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

for _folder in ("worker", "faults"):
    sys.path.insert(0, str(Path(__file__).parents[1] / _folder))  # for the harnesses of those folders

from servers import temporary_folder  # noqa: E402
from service_harness import ServiceHarness  # noqa: E402
from slurm_cluster import SlurmCluster  # noqa: E402

LEASE = {"heartbeat_seconds": 1, "fence_seconds": 15, "lease_seconds": 20}
"""Long enough for a busy machine: an attempt that the worker gave up would look like one that Slurm ended."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[SlurmCluster]:
    """A running Slurm with one node of four CPUs."""
    if shutil.which("slurmctld") is None or shutil.which("slurmd") is None or os.geteuid() != 0:
        pytest.skip("needs root, slurmctld and slurmd (Debian: slurm-wlm)")
    with temporary_folder("frs-slurm-") as folder, SlurmCluster(folder) as cluster:
        yield cluster


@pytest.fixture
def service(tmp_path: Path) -> Iterator[ServiceHarness]:
    with ServiceHarness(tmp_path, **LEASE) as service:
        yield service
