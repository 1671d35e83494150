"""Lint and render deploy/helm/frs with Helm and validate the objects; runs in the environment `build/helm` (Makefile).

Standard input: JSON of values by name. Standard output: JSON by name, of the objects or the message of the refusal.
"""

import json
import sys
from pathlib import Path

import helm_python
import yaml
from validate_objects import validate

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


if __name__ == "__main__":
    json.dump({name: render(values) for name, values in json.load(sys.stdin).items()}, sys.stdout)
