"""docker/monitoring/alerts.yml, tried by Prometheus's own means where they are installed."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from api.monitoring.middleware import SECONDS
from store.scheduling import worker_registry

MONITORING = Path(__file__).parents[2] / "docker" / "monitoring"
RULES = {
    rule["alert"]: rule
    for group in yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
}


def threshold(alert: str) -> float:
    """What its expression ends in, below which it does not fire."""
    return float(RULES[alert]["expr"].rpartition(">")[2])


def seconds(text: str) -> int:
    return int(text[:-1]) * {"s": 1, "m": 60, "h": 3600}[text[-1]]


def test_each_alert_fires_when_it_should_and_only_then():
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed")
    done = subprocess.run(
        ["promtool", "test", "rules", "alerts_test.yml"], cwd=MONITORING, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_alert_is_left_untried():
    tried = (MONITORING / "alerts_test.yml").read_text()
    assert [alert for alert in RULES if alert not in tried] == []


def test_a_dead_worker_is_told_for_longer_than_its_alert_waits():
    alert = "WorkerFallsSilent"
    assert 2 * (threshold(alert) + seconds(RULES[alert]["for"])) < worker_registry.SILENT_SECONDS


def test_an_answer_can_be_as_slow_as_its_alert_says():
    assert max(SECONDS) > threshold("SlowAnswers"), "a quantile is never above the last finite bucket"
