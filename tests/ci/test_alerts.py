"""docker/monitoring/alerts.yml, tested with promtool where it is installed."""

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
    """Return the number at the end of the alert's expression, above which the alert fires."""
    return float(RULES[alert]["expr"].rpartition(">")[2])


def seconds(text: str) -> int:
    return int(text[:-1]) * {"s": 1, "m": 60, "h": 3600}[text[-1]]


def test_each_alert_fires_exactly_when_it_should():
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed")
    promtool = subprocess.run(
        ["promtool", "test", "rules", "alerts_test.yml"], cwd=MONITORING, capture_output=True, text=True, check=False
    )
    assert promtool.returncode == 0, promtool.stdout + promtool.stderr


def test_every_alert_has_a_test():
    alert_tests = (MONITORING / "alerts_test.yml").read_text()
    assert [alert for alert in RULES if alert not in alert_tests] == []


def test_a_dead_worker_stays_in_the_metrics_longer_than_its_alert_waits():
    alert = "WorkerNotResponding"
    assert 2 * (threshold(alert) + seconds(RULES[alert]["for"])) < worker_registry.RECENTLY_SEEN_SECONDS


def test_the_latency_buckets_exceed_the_threshold_of_the_latency_alert():
    assert max(SECONDS) > threshold("SlowResponses"), "a quantile is never above the last finite bucket"
