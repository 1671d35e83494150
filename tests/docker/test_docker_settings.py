"""Settings in .env as the processes in the containers receive them."""

import secrets
from collections.abc import Callable
from pathlib import Path

import pytest
from stack import Images, Stack

from frs_client import ServiceError
from store.settings import Settings
from store.settings_report import OTHER_VARIABLES, variable

pytestmark = pytest.mark.docker
FIXED = ("FRS_DATA", "FRS_DATASETS_ROOT", "FRS_MODELS_ROOT", "FRS_HEARTBEAT_FILE")
KEPT = (*FIXED, "FRS_DATABASE_URL", "FRS_BROKER_URL", "FRS_ARTIFACTS_URL", "FRS_API_KEY_FILE", "FRS_ALLOWED_HOSTS")


def test_every_setting_in_env_reaches_the_processes(stack_with: Callable[..., Stack]):
    changed = {
        "FRS_FENCE_SECONDS": "41",
        "FRS_GRACE_SECONDS": "50",
        "FRS_MAX_STREAMS_PER_KEY": "7",
        "FRS_DATA": "/else",
    }
    names = [*map(variable, Settings.model_fields), *OTHER_VARIABLES]
    empty = {name: "" for name in names if name not in KEPT and name not in changed}
    stack = stack_with(**empty, **changed, FRS_FENSE_SECONDS="40", AWS_REGION="somewhere")
    for service in ("api", "worker"):
        environment = stack.inspect(service)["Config"]["Env"]
        assert {f"{name}={value}" for name, value in (empty | changed).items() if name not in FIXED} <= set(environment)
        assert "FRS_DATA=/data" in environment and "AWS_REGION=somewhere" in environment
        assert not any(stack.setting("GRAFANA_PASSWORD") in line for line in environment)
        rows = stack.inside(service, "python", "-m", "store", "settings")
        for name, value in (("FRS_FENCE_SECONDS", "41.0"), ("FRS_GRACE_SECONDS", "50.0"), ("FRS_DATA", "/data")):
            assert any(line.split() == [name, "environment", value] for line in rows.splitlines())
        assert stack.setting("POSTGRES_PASSWORD") not in rows and "://frs:***@postgres" in rows
        assert "did you mean FRS_FENCE_SECONDS?" in stack.compose("logs", service)


SMALL_VOLUME = """
volumes:
  data: {driver_opts: {type: tmpfs, device: tmpfs, o: "size=320m,uid=10001,gid=10001"}}
"""


def test_an_upload_that_a_small_volume_cannot_hold_is_refused_and_jobs_still_run(
    images: Images, datasets: Path, tmp_path: Path
):
    variables = {"FRS_API_IMAGE": images.api, "FRS_WORKER_IMAGE": images.worker}
    files = ("docker-compose.yml", "small.yml")
    stack = Stack(f"frs-test-{secrets.token_hex(3)}", tmp_path, datasets, files=files, **variables)
    (stack.source / "small.yml").write_text(SMALL_VOLUME)
    weights = tmp_path / "zeros.bin"
    weights.write_bytes(bytes(200 << 20))
    with stack:
        stack.add_bccd()
        query = {"name": "zeros", "description": '{"architecture": "gfl"}'}
        with pytest.raises(ServiceError, match="storage_full"):
            stack.client.upload(
                "/detectors/upload", weights, "application/octet-stream", lambda sent, total: None, **query
            )
        disks = stack.client.get("/usage")["disks"]
        assert disks and all(disk["free"] > disk["floor"] for disk in disks)
        assert stack.client.get("/detectors")["data"] == []
        assert stack.wait_until_ended(stack.submit())["status"] == "succeeded"
