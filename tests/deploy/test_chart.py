"""The Helm chart, rendered by Helm without a cluster: what Kubernetes would get for six sets of values."""

import copy
import importlib.util
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from store.scheduling.queue import GpuCapacity
from worker.process.environment import trainer_environment

pytestmark = pytest.mark.helm
ROOT = Path(__file__).parents[2]
PYTHON = ROOT / "build" / "helm" / "bin" / "python"
REQUIRED = {
    "images": {"api": "registry.example/frs-api:0.1", "worker": "registry.example/frs-worker:0.1"},
    "existingSecret": "frs",
    "keysSecret": "frs-keys",
    "config": {"FRS_ARTIFACTS_URL": "s3://bucket/frs"},
}
AMOUNTS = {"cpu": "2", "memory": "8Gi", "ephemeral-storage": "10Gi"}


def worker_class(gpus: int, **more: Any) -> dict[str, Any]:
    resources = {"requests": AMOUNTS, "limits": AMOUNTS}
    return {"name": f"gpu{gpus}", "gpus": gpus, "maxReplicas": 2, "sharedMemory": "1Gi", "resources": resources} | more


GPU_NODES = {
    "nodeSelector": {"pool": "gpu"},
    "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
    "runtimeClassName": "nvidia",
}
VALUES: dict[str, dict[str, Any]] = {
    "defaults": {},
    "sizes": {"workers": {"classes": [worker_class(4), worker_class(1), worker_class(8)], "storageClassName": "fast"}},
    "without KEDA": {"workers": {"mode": "deployment", "classes": [worker_class(0)]}},
    "public": {
        "ingress": {"enabled": True, "className": "nginx", "host": "frs.example.org", "tlsSecret": "frs-tls"},
        "monitoring": {"enabled": True, "labels": {"release": "prometheus"}},
        "config": REQUIRED["config"] | {"FRS_ALLOWED_ORIGINS": "https://board.example.org"},
    },
    "volumes": {
        "datasets": {"existingClaim": "coco"},
        "models": {"create": True, "storageClassName": "nfs"},
        "api": {"autoscaling": {"enabled": False}, "replicas": 3},
        "networkPolicy": {"enabled": False},
    },
    "roles and nodes": {
        "migrate": {"ownerSecret": "frs-owner"},
        "serviceAccount": {"annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/frs"}},
        "images": REQUIRED["images"] | {"pullSecrets": ["registry"]},
        "workers": {"classes": [worker_class(1, **GPU_NODES)]},
        "networkPolicy": {"apiFrom": [{"namespaceSelector": {"matchLabels": {"name": "ingress"}}}]},
    },
}
REFUSED = {
    "no values": ({}, "existingSecret"),
    "a folder for artifacts": (REQUIRED | {"config": {"FRS_ARTIFACTS_URL": "/data/artifacts"}}, "FRS_ARTIFACTS_URL"),
    "a password in the values": (
        REQUIRED | {"config": REQUIRED["config"] | {"FRS_DATABASE_URL": "postgresql://frs:x@db/frs"}},
        "FRS_DATABASE_URL",
    ),
    "a misspelt name": (REQUIRED | {"ingres": {"enabled": True}}, "ingres"),
    "an ingress without TLS": (REQUIRED | {"ingress": {"enabled": True, "host": "frs.example.org"}}, "tlsSecret"),
    "workers without limits": (
        REQUIRED | {"workers": {"classes": [worker_class(1, resources={"requests": AMOUNTS})]}},
        "limits",
    ),
    "CPU workers beside GPU workers": (
        REQUIRED | {"workers": {"classes": [worker_class(0), worker_class(1)]}},
        "the class with 0 GPUs stands alone",
    ),
    "two classes of one size": (
        REQUIRED | {"workers": {"classes": [worker_class(1), worker_class(1, name="other")]}},
        "two classes have 1 GPUs",
    ),
}
RESTRICTED_VOLUMES = {"configMap", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
SECRET = {"parameter": "connection", "name": "frs"}
UNEXPECTED = "Additional properties are not allowed"
MISTAKES = {
    "a misspelt field of KEDA": ("ScaledJob", "spec.maxReplicas", 3, UNEXPECTED),
    "a misspelt field of a trigger": ("ScaledJob", "spec.triggers.0.metadatas", {}, UNEXPECTED),
    "a number as text": ("ScaledJob", "spec.maxReplicaCount", "3", "'3' is not of type 'integer'"),
    "an unknown strategy": ("ScaledJob", "spec.rollout.strategy", "slow", "'slow' is not one of"),
    "a misspelt field of a scaled pod": ("ScaledJob", "spec.jobTargetRef.template.spec.runtime", "nvidia", UNEXPECTED),
    "a misspelt field of the metadata": ("ScaledJob", "metadata.label", {}, UNEXPECTED),
    "another version of KEDA": ("TriggerAuthentication", "apiVersion", "keda.sh/v1", "'keda.sh/v1alpha1' was expected"),
    "a secret without a key": ("TriggerAuthentication", "spec.secretTargetRef.0", SECRET, "'key' is a required"),
    "a rule without an expression": ("PrometheusRule", "spec.groups.0.rules.0", {"alert": "A"}, "'expr' is a required"),
    "a duration without a unit": ("PrometheusRule", "spec.groups.0.rules.0.for", "5", "'5' does not match"),
    "a misspelt field of Prometheus": ("ServiceMonitor", "spec.endpoints.0.intervall", "30s", UNEXPECTED),
    "a misspelt field of Kubernetes": ("Deployment", "spec.template.spec.hostnetwork", True, UNEXPECTED),
}
every_set = pytest.mark.parametrize("name", VALUES)


@pytest.fixture(scope="module")
def charts() -> dict[str, Any]:
    """Return what Helm makes of each set of values."""
    if not PYTHON.exists():
        pytest.skip("needs build/helm: run `make test-deploy`")
    sets = {name: REQUIRED | values for name, values in VALUES.items()}
    sets |= {name: values for name, (values, _) in REFUSED.items()}
    return output_of("render_chart.py", sets)


@pytest.fixture(scope="module")
def claimable_sql() -> Any:
    """Return the script that writes the chart's query."""
    spec = importlib.util.spec_from_file_location("claimable_sql", ROOT / ".ci" / "claimable_sql.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@every_set
def test_helm_and_the_schemas_of_all_objects_accept_it(charts: dict[str, Any], name: str) -> None:
    assert charts[name].get("refused") is None
    assert charts[name]["lint"] == [] and charts[name]["invalid"] == []
    identities = [(document["kind"], document["metadata"]["name"]) for document in charts[name]["objects"]]
    assert len(set(identities)) == len(identities)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_an_object_is_found(charts: dict[str, Any], mistake: str) -> None:
    kind, path, value, message = MISTAKES[mistake]
    document = copy.deepcopy(of_kind(charts["public"], kind)[0])
    *parents, last = [int(part) if part.isdecimal() else part for part in path.split(".")]
    parent: Any = document
    for part in parents:
        parent = parent[part]
    parent[last] = value
    [error] = output_of("validate_objects.py", [document])
    assert error.startswith(f"{kind} {document['metadata']['name']}: ") and message in error, error


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_values_are_refused_with_their_name(charts: dict[str, Any], name: str) -> None:
    assert REFUSED[name][1] in charts[name]["refused"]


@every_set
def test_pods_meet_the_restricted_pod_security_standard(charts: dict[str, Any], name: str) -> None:
    for pod in pods(charts[name]):
        assert pod["securityContext"]["runAsNonRoot"] is True and pod["securityContext"]["runAsUser"] == 10001
        assert pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        assert {kind for volume in pod["volumes"] for kind in volume.keys() - {"name"}} <= RESTRICTED_VOLUMES
        for container in containers(pod):
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is security["privileged"] is False
            assert security["capabilities"] == {"drop": ["ALL"]} and security["readOnlyRootFilesystem"] is True
            assert not any("hostPort" in port for port in container.get("ports", []))


@every_set
def test_containers_have_requests_and_limits(charts: dict[str, Any], name: str) -> None:
    for pod in pods(charts[name]):
        for container in containers(pod):
            for kind in ("requests", "limits"):
                assert {"cpu", "memory", "ephemeral-storage"} <= container["resources"][kind].keys()
        limited = [volume["emptyDir"].get("sizeLimit") for volume in pod["volumes"] if "emptyDir" in volume]
        assert all(limited), "an emptyDir without a limit fills the node's disk"


@every_set
def test_pods_get_no_token_of_kubernetes_and_no_variables_of_services(charts: dict[str, Any], name: str) -> None:
    for pod in pods(charts[name]):
        assert pod["automountServiceAccountToken"] is pod["enableServiceLinks"] is False


@every_set
def test_trainers_get_none_of_the_workers_secrets(charts: dict[str, Any], name: str) -> None:
    secrets = {"FRS_DATABASE_URL": "canary", "FRS_BROKER_URL": "canary", "AWS_SECRET_ACCESS_KEY": "canary"}
    [pod, *_] = [pod for pod in pods(charts[name]) if containers(pod)[0]["name"] == "worker"]
    [container] = containers(pod)
    assert container["envFrom"] == [{"secretRef": {"name": "frs"}}]
    environment = {entry["name"]: entry.get("value", "pod") for entry in container["env"]} | secrets
    assert not {"canary", "s3://bucket/frs"} & set(trainer_environment(environment).values())
    assert "keys" not in [volume["name"] for volume in pod["volumes"]], "API keys are for the migration alone"


@every_set
def test_the_chart_makes_no_secret(charts: dict[str, Any], name: str) -> None:
    assert "Secret" not in kinds(charts[name])


def test_the_migration_runs_before_the_service_changes(charts: dict[str, Any]) -> None:
    [job] = of_kind(charts["defaults"], "Job")
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    [container] = containers(job["spec"]["template"]["spec"])
    assert container["args"] == ["python", "-m", "store", "init"]


def test_only_the_migration_gets_the_url_of_the_tables_owner(charts: dict[str, Any]) -> None:
    name = "FRS_DATABASE_OWNER_URL"
    found = [
        (container["name"], variable["valueFrom"]["secretKeyRef"])
        for pod in pods(charts["roles and nodes"])
        for container in containers(pod)
        for variable in container["env"]
        if variable["name"] == name
    ]
    assert found == [("migrate", {"name": "frs-owner", "key": name})]


def test_keda_starts_a_worker_of_the_smallest_size_for_each_job(charts: dict[str, Any], claimable_sql: Any) -> None:
    sizes = {1: 0, 4: 2, 8: 5}
    scaled = {document["metadata"]["name"]: document["spec"] for document in of_kind(charts["sizes"], "ScaledJob")}
    assert set(scaled) == {f"demo-frs-gpu{gpus}" for gpus in sizes}
    for gpus, at_least in sizes.items():
        spec = scaled[f"demo-frs-gpu{gpus}"]
        [container] = containers(spec["jobTargetRef"]["template"]["spec"])
        assert container["args"] == ["python", "-m", "worker", "--once", "--min-gpus", str(at_least)]
        assert container["resources"]["limits"]["nvidia.com/gpu"] == gpus
        query = spec["triggers"][0]["metadata"]["query"]
        if at_least:
            assert query == claimable_sql.sql(GpuCapacity(gpus, gpus, at_least))
        assert ":" not in query


def test_an_upgrade_kills_no_running_job_and_a_failed_pod_is_not_repeated(charts: dict[str, Any]) -> None:
    [scaled] = of_kind(charts["defaults"], "ScaledJob")
    assert scaled["spec"]["rollout"] == {"strategy": "gradual"}
    assert scaled["spec"]["scalingStrategy"] == {"strategy": "accurate"}, "the query does not count running jobs"
    assert scaled["spec"]["jobTargetRef"]["backoffLimit"] == 0


@every_set
def test_kubernetes_waits_longer_than_the_worker_needs_to_stop(charts: dict[str, Any], name: str) -> None:
    for pod in pods(charts[name]):
        environment = {entry["name"]: entry.get("value") for entry in containers(pod)[0]["env"]}
        if grace := environment.get("FRS_GRACE_SECONDS"):
            assert pod["terminationGracePeriodSeconds"] >= int(grace) + 15


def test_without_keda_workers_run_all_the_time(charts: dict[str, Any]) -> None:
    chart = charts["without KEDA"]
    assert not {"ScaledJob", "TriggerAuthentication"} & kinds(chart)
    [worker] = [document for document in of_kind(chart, "Deployment") if document["metadata"]["name"].endswith("gpu0")]
    [container] = containers(worker["spec"]["template"]["spec"])
    assert container["args"] == ["python", "-m", "worker"] and "nvidia.com/gpu" not in container["resources"]["limits"]
    assert worker["spec"]["replicas"] == 2


def test_the_api_has_two_pods_and_survives_a_drained_node(charts: dict[str, Any]) -> None:
    [scaler] = of_kind(charts["defaults"], "HorizontalPodAutoscaler")
    assert scaler["spec"]["minReplicas"] == 2
    [budget] = of_kind(charts["defaults"], "PodDisruptionBudget")
    [api] = of_kind(charts["defaults"], "Deployment")
    assert budget["spec"]["maxUnavailable"] == 1 and "replicas" not in api["spec"]
    assert api["spec"]["template"]["metadata"]["labels"].items() >= budget["spec"]["selector"]["matchLabels"].items()
    [api] = of_kind(charts["volumes"], "Deployment")
    assert api["spec"]["replicas"] == 3 and "HorizontalPodAutoscaler" not in kinds(charts["volumes"])


def test_pods_of_the_api_need_the_redis_that_their_limits_are_in(charts: dict[str, Any]) -> None:
    [api] = of_kind(charts["defaults"], "Deployment")
    [container] = containers(api["spec"]["template"]["spec"])
    [broker] = [variable for variable in container["env"] if variable["name"] == "FRS_BROKER_URL"]
    assert broker["valueFrom"] == {"secretKeyRef": {"name": REQUIRED["existingSecret"], "key": "FRS_BROKER_URL"}}


def test_only_the_api_accepts_connections(charts: dict[str, Any]) -> None:
    policies = network_policies(charts["defaults"])
    assert policies["demo-frs-worker"]["ingress"] == policies["demo-frs-migrate"]["ingress"] == []
    assert policies["demo-frs-api"]["ingress"] == [{"ports": [{"protocol": "TCP", "port": 8000}]}]
    for spec in policies.values():
        assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert egress_ports(policies["demo-frs-worker"]) == {53, 443, 5432, 6379}
    assert "NetworkPolicy" not in kinds(charts["volumes"])
    limited = network_policies(charts["roles and nodes"])["demo-frs-api"]["ingress"][0]
    assert limited["from"] == [{"namespaceSelector": {"matchLabels": {"name": "ingress"}}}]


def test_prometheus_gets_the_alerts_and_grafana_the_dashboard_of_the_containers(charts: dict[str, Any]) -> None:
    [rule] = of_kind(charts["public"], "PrometheusRule")
    assert {"ApiDown", "NoWorkerWhileJobsWait"} <= {alert["alert"] for alert in rule["spec"]["groups"][0]["rules"]}
    assert rule["metadata"]["labels"]["release"] == "prometheus"
    [dashboard] = of_kind(charts["public"], "ConfigMap")
    assert json.loads(dashboard["data"]["frs.json"]) == json.loads(
        (ROOT / "docker/monitoring/grafana/frs.json").read_text()
    )
    [monitor] = of_kind(charts["public"], "ServiceMonitor")
    assert monitor["spec"]["endpoints"][0]["authorization"]["credentials"] == {"name": "frs-keys", "key": "metrics-key"}
    assert "PrometheusRule" not in kinds(charts["defaults"])


def test_volumes_of_data_sets_are_read_only_and_kept(charts: dict[str, Any]) -> None:
    [claim] = of_kind(charts["volumes"], "PersistentVolumeClaim")
    assert claim["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    for pod in pods(charts["volumes"]):
        claims = {v["name"]: v["persistentVolumeClaim"] for v in pod["volumes"] if "persistentVolumeClaim" in v}
        if claims:
            assert claims["datasets"] == {"claimName": "coco", "readOnly": True}
            assert claims["models"] == {"claimName": claim["metadata"]["name"], "readOnly": True}


def test_the_notes_name_the_next_steps(charts: dict[str, Any]) -> None:
    assert "https://frs.example.org" in charts["public"]["notes"]
    assert "port-forward service/demo-frs-api 8000" in charts["defaults"]["notes"]
    assert "frs datasets upload" in charts["defaults"]["notes"]
    assert "frs datasets upload" not in charts["volumes"]["notes"]


def output_of(script: str, document: Any) -> Any:
    """Return the JSON that a script of this folder writes in the environment of Helm."""
    command = [str(PYTHON), str(ROOT / "tests" / "deploy" / script)]
    result = subprocess.run(command, input=json.dumps(document), capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def of_kind(chart: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [document for document in chart["objects"] if document["kind"] == kind]


def kinds(chart: dict[str, Any]) -> set[str]:
    return {document["kind"] for document in chart["objects"]}


def pods(chart: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the specs of all pods: of deployments, jobs and scaled jobs."""
    owners = [*of_kind(chart, "Deployment"), *of_kind(chart, "Job")]
    specs = [owner["spec"] for owner in owners] + [
        scaled["spec"]["jobTargetRef"] for scaled in of_kind(chart, "ScaledJob")
    ]
    assert len(specs) >= 3
    return [spec["template"]["spec"] for spec in specs]


def containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    return [*pod.get("initContainers", []), *pod["containers"]]


def network_policies(chart: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {document["metadata"]["name"]: document["spec"] for document in of_kind(chart, "NetworkPolicy")}


def egress_ports(policy: dict[str, Any]) -> set[int]:
    return {port["port"] for rule in policy["egress"] for port in rule["ports"]}
