"""The dashboard and alerts in docker/monitoring use only metrics and labels that GET /metrics exports."""

import json
import re
from collections import defaultdict
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from frs import events
from store.scheduling import worker_registry

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "docker" / "monitoring"
SERVICES = {
    name: service
    for name, service in yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"].items()
    if "profiles" in service
}
"""The monitoring services."""
DASHBOARD = json.loads((MONITORING / "grafana" / "frs.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
RULES = [rule for group in yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"] for rule in group["rules"]]
EXPRESSIONS = [target["expr"] for panel in PANELS for target in panel["targets"]] + [rule["expr"] for rule in RULES]
EXPRESSIONS += [annotation["expr"] for annotation in DASHBOARD["annotations"]["list"]]
PROMETHEUS_LABELS = {"instance", "job", "le"}
COMPLETE_METRICS = {
    "frs_jobs",
    "frs_jobs_waiting",
    "frs_jobs_ended_total",
    "frs_attempts_ended_total",
    "frs_worker_requests",
    "frs_webhooks",
}
"""Metrics that are exported with all values of their label from the start."""


@pytest.fixture
def exported(service, shapes):
    """By metric, the values of each label, exported by a service that uses all metrics."""
    gpu = {"index": 0, "name": "A", "memory_total": 80, "memory_used": 60, "utilization": 97}
    service.transact(worker_registry.register, "w1", host="h", version="1", concurrency=1, gpus=[gpu])
    lease = service.claim(service.submit(schedule={"epochs": 1, "batch_size": 8})["id"])
    service.record(lease, events.Progress(epoch=1, epochs=1, step=1, steps=9, fraction=0.1, images_per_second=8.0))
    metrics = defaultdict(lambda: defaultdict(set))
    for family in text_string_to_metric_families(service.client.get("/metrics").text):
        for sample in family.samples:
            labels = metrics[sample.name]
            for label, value in sample.labels.items():
                labels[label].add(value)
    return metrics


def test_every_metric_in_an_expression_is_exported(exported):
    used = {name for expression in EXPRESSIONS for name in re.findall(r"\bfrs_\w+", expression)}
    assert used <= exported.keys()


def test_every_label_in_a_matcher_belongs_to_its_metric(exported):
    for expression in EXPRESSIONS:
        for name, matchers in re.findall(r"\b(frs_\w+)\{([^}]*)\}", expression):
            for label, kind, value in re.findall(r'(\w+)(=~|!~|!=|=)"([^"]*)"', matchers):
                assert label in exported[name], expression
                if name in COMPLETE_METRICS:
                    values = value.split("|") if "~" in kind else [value]
                    assert set(values) <= exported[name][label], expression


def test_every_grouping_uses_exported_labels(exported):
    for expression in EXPRESSIONS:
        allowed = PROMETHEUS_LABELS | {
            label for name in re.findall(r"\bfrs_\w+", expression) for label in exported[name]
        }
        for labels in re.findall(r"\b(?:by|on) \(([^)]*)\)", expression):
            assert set(re.split(r",\s*", labels)) <= allowed, expression


def test_every_legend_uses_exported_labels(exported):
    for panel in PANELS:
        for target in panel["targets"]:
            allowed = {label for name in re.findall(r"\bfrs_\w+", target["expr"]) for label in exported[name]}
            assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= allowed, panel["title"]


def test_prometheus_scrapes_the_existing_route_with_the_metrics_key(service):
    jobs = yaml.safe_load((MONITORING / "prometheus.yml").read_text())["scrape_configs"]
    scrape = next(job for job in jobs if job["job_name"] == "frs")
    assert service.client.get(scrape["metrics_path"]).status_code == 200
    key = scrape["authorization"]["credentials_file"]
    folder, _, name = key.rpartition("/")
    assert f"./.secrets/prometheus:{folder}:ro" in SERVICES["prometheus"]["volumes"], (
        "a folder, because files are replaced"
    )
    assert name == "metrics-key"
    assert scrape["static_configs"] == [{"targets": ["api:8000"]}]


def test_mounted_files_exist():
    sources = [volume.split(":")[0] for service in SERVICES.values() for volume in service["volumes"]]
    files = [source for source in sources if source.startswith("./docker/")]
    assert len(files) == 4
    assert all((ROOT / source).exists() for source in files)


def test_monitoring_services_are_pinned_and_start_only_with_their_profile():
    for service in SERVICES.values():
        assert re.search(r":[v\d][\d.]+\}$", service["image"])
        assert service["profiles"] == ["monitoring"]
    assert sorted(SERVICES) == ["grafana", "prometheus"]


def test_the_dashboard_uses_the_provisioned_data_source():
    provisioning = MONITORING / "grafana" / "provisioning"
    source = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"][0]
    assert {panel["datasource"]["uid"] for panel in PANELS} == {source["uid"]}
    folder = yaml.safe_load((provisioning / "dashboards" / "frs.yml").read_text())["providers"][0]["options"]["path"]
    assert f"./docker/monitoring/grafana/frs.json:{folder}/frs.json:ro" in SERVICES["grafana"]["volumes"]


def test_no_two_panels_overlap_or_share_an_id():
    cells = [
        (x, y)
        for panel in DASHBOARD["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells)) and max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_every_alert_has_a_severity_and_instructions():
    assert {rule["labels"]["severity"] for rule in RULES} <= {"info", "warning", "critical"}
    assert all(rule["annotations"]["summary"] and rule["annotations"]["do"] for rule in RULES)
