"""Lint and render deploy/helm/frs with Helm and validate the objects; runs in the environment `build/helm` (Makefile).

Standard input: JSON of values by name. Standard output: JSON by name, of the objects or the message of the refusal.
"""

import json
import sys
from pathlib import Path

import helm_python
import kubernetes_validate
import yaml

CHART = Path(__file__).parents[2] / "deploy" / "helm" / "frs"


def render(values: dict) -> dict:
    try:
        with helm_python.Chart.load(CHART) as chart:
            chart.validate_schema(values)
            files = chart.render(values, name="demo", namespace="vision", is_install=True)
    except helm_python.HelmError as error:
        return {"refused": str(error)}
    report = helm_python.lint(CHART, values, strict=True)
    notes = next(text for name, text in files.items() if name.endswith("NOTES.txt"))
    texts = [text for name, text in sorted(files.items()) if name.endswith(".yaml")]
    objects = [document for text in texts for document in yaml.safe_load_all(text) if document]
    findings = [message["error"] for message in report["messages"] if message["severity"] > 1]
    return {"lint": findings + report["errors"], "notes": notes, "objects": objects, "invalid": validate(objects)}


def validate(objects: list[dict]) -> list[str]:
    """Return what is wrong with the objects; a ScaledJob's job is validated as a Job."""
    invalid = []
    for document in objects:
        if document["kind"] == "ScaledJob":
            job = document["spec"]["jobTargetRef"]
            document = {"apiVersion": "batch/v1", "kind": "Job", "metadata": document["metadata"], "spec": job}
        if document["apiVersion"].partition("/")[0] in ("keda.sh", "monitoring.coreos.com"):
            continue  # not in Kubernetes' own schema
        try:
            kubernetes_validate.validate(document, "1.37.0", strict=True)
        except kubernetes_validate.ValidationError as error:
            invalid.append(f"{document['kind']} {document['metadata']['name']}: {error.path}: {error.message}")
    return invalid


if __name__ == "__main__":
    json.dump({name: render(values) for name, values in json.load(sys.stdin).items()}, sys.stdout)
