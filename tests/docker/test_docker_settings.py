"""Settings in .env as the processes in the containers receive them."""

from collections.abc import Callable

import pytest
from stack import Stack

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
