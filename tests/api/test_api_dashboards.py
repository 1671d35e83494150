"""What docker/monitoring asks Prometheus for is what GET /metrics has."""

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
DASHBOARD = json.loads((MONITORING / "grafana" / "frs.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
RULES = [rule for group in yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"] for rule in group["rules"]]
EXPRESSIONS = [target["expr"] for panel in PANELS for target in panel["targets"]] + [rule["expr"] for rule in RULES]
EXPRESSIONS += [annotation["expr"] for annotation in DASHBOARD["annotations"]["list"]]
OF_PROMETHEUS = {"instance", "job", "le"}
CLOSED = {"frs_jobs", "frs_jobs_waiting", "frs_jobs_ended", "frs_attempts", "frs_worker_requests"}
"""Their label has every value from the start."""


@pytest.fixture
def offered(service, shapes):
    """Of a service with everything in use: each metric's labels, and the values each of them has."""
    gpu = {"index": 0, "name": "A", "memory_total": 80, "memory_used": 60, "utilization": 97}
    service._do(worker_registry.register, "w1", host="h", version="1", concurrency=1, gpus=[gpu])
    lease = service.claim(service.submit(schedule={"epochs": 1, "batch_size": 8})["id"])
    service.record(lease, events.Progress(epoch=1, epochs=1, step=1, steps=9, fraction=0.1, images_per_second=8.0))
    found = defaultdict(lambda: defaultdict(set))
    for run_group in text_string_to_metric_families(service.client.get("/metrics").text):
        for sample in run_group.samples:
            labels = found[sample.name]
            for label, value in sample.labels.items():
                labels[label].add(value)
    return found


def test_every_metric_asked_for_is_offered(offered):
    asked = {name for expression in EXPRESSIONS for name in re.findall(r"\bfrs_\w+", expression)}
    assert asked <= offered.keys()


def test_every_label_asked_for_is_one_the_metric_has(offered):
    for expression in EXPRESSIONS:
        for name, matchers in re.findall(r"\b(frs_\w+)\{([^}]*)\}", expression):
            for label, kind, value in re.findall(r'(\w+)(=~|!~|!=|=)"([^"]*)"', matchers):
                assert label in offered[name], expression
                if name in CLOSED:
                    wanted = value.split("|") if "~" in kind else [value]
                    assert set(wanted) <= offered[name][label], expression


def test_every_grouping_is_by_labels_that_are_there(offered):
    for expression in EXPRESSIONS:
        known = OF_PROMETHEUS | {label for name in re.findall(r"\bfrs_\w+", expression) for label in offered[name]}
        for labels in re.findall(r"\b(?:by|on) \(([^)]*)\)", expression):
            assert set(re.split(r",\s*", labels)) <= known, expression


def test_every_legend_names_labels_that_are_there(offered):
    for panel in PANELS:
        for target in panel["targets"]:
            known = {label for name in re.findall(r"\bfrs_\w+", target["expr"]) for label in offered[name]}
            assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= known, panel["title"]


def test_prometheus_asks_the_route_that_there_is_with_the_admins_key(service):
    jobs = yaml.safe_load((MONITORING / "prometheus.yml").read_text())["scrape_configs"]
    ours = next(job for job in jobs if job["job_name"] == "frs")
    assert service.client.get(ours["metrics_path"]).status_code == 200
    key = ours["authorization"]["credentials_file"]
    mounted = yaml.safe_load((MONITORING / "compose.yml").read_text())["services"]["prometheus"]["volumes"]
    assert f"../../.secrets/api-key:{key}:ro" in mounted
    assert ours["static_configs"] == [{"targets": ["api:8000"]}]


def test_what_is_mounted_is_there():
    services = yaml.safe_load((MONITORING / "compose.yml").read_text())["services"]
    named = [volume.split(":")[0] for service in services.values() for volume in service["volumes"]]
    files = [source for source in named if source.startswith("./")]
    assert len(files) == 4
    assert all((MONITORING / source).exists() for source in files)


def test_both_are_as_closed_as_the_other_services():
    for service in yaml.safe_load((MONITORING / "compose.yml").read_text())["services"].values():
        assert service["read_only"] and service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
        assert re.search(r":[v\d][\d.]+\}$", service["image"])
        assert service["profiles"] == ["monitoring"]


def test_the_dashboard_asks_the_source_that_is_provisioned():
    provisioning = MONITORING / "grafana" / "provisioning"
    source = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"][0]
    assert {panel["datasource"]["uid"] for panel in PANELS} == {source["uid"]}
    folder = yaml.safe_load((provisioning / "dashboards" / "frs.yml").read_text())["providers"][0]["options"]["path"]
    grafana = yaml.safe_load((MONITORING / "compose.yml").read_text())["services"]["grafana"]
    assert f"./grafana/frs.json:{folder}/frs.json:ro" in grafana["volumes"]


def test_no_two_panels_overlap_or_share_a_number():
    cells = [
        (x, y)
        for panel in DASHBOARD["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells)) and max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_every_alert_says_what_to_do():
    assert {rule["labels"]["severity"] for rule in RULES} <= {"info", "warning", "critical"}
    assert all(rule["annotations"]["summary"] and rule["annotations"]["do"] for rule in RULES)
