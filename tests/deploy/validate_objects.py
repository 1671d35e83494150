"""Validate objects by the schemas of Kubernetes, KEDA and the Prometheus operator, in the environment `build/helm`.

Standard input: JSON list of objects. Standard output: JSON list of what is wrong. Unknown fields are wrong, too.
"""

import json
import sys
from pathlib import Path

import kubernetes_validate
from jsonschema import Draft202012Validator

VERSION = "1.37.0"
SCHEMAS = {file.stem: json.loads(file.read_text()) for file in Path(__file__).with_name("schemas").glob("*.json")}


def validate(objects: list[dict]) -> list[str]:
    return [
        f"{document['kind']} {document['metadata']['name']}: {error}"
        for document in objects
        for error in errors(document)
    ]


def errors(document: dict) -> list[str]:
    """Return what is wrong with the object; a ScaledJob's job is validated as a Job."""
    if document["kind"] not in SCHEMAS:
        return kubernetes_errors(document)
    validator = Draft202012Validator(SCHEMAS[document["kind"]])
    found = [f"{error.json_path}: {error.message}" for error in validator.iter_errors(document)]
    builtin = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": document["metadata"]}
    if document["kind"] == "ScaledJob":
        builtin |= {"apiVersion": "batch/v1", "kind": "Job", "spec": document["spec"]["jobTargetRef"]}
    return found + kubernetes_errors(builtin)


def kubernetes_errors(document: dict) -> list[str]:
    try:
        kubernetes_validate.validate(document, VERSION, strict=True)
    except kubernetes_validate.ValidationError as error:
        return [f"{'.'.join(map(str, error.path))}: {error.message}"]
    return []


if __name__ == "__main__":
    json.dump(validate(json.load(sys.stdin)), sys.stdout)
