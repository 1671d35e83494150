"""Write the JSON Schemas of KEDA's and the Prometheus operator's objects from their definitions: `refresh.py [BASE]`.

BASE is by default https://raw.githubusercontent.com. The schemas refuse unknown fields, as Kubernetes does with
`kubectl apply --validate=strict`. They leave out descriptions, defaults, the status, and the pods of a ScaledJob, which
`validate_objects.py` validates by Kubernetes' own schema.
"""

import json
import sys
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import yaml

KEDA = "kedacore/keda/v2.20.2/config/crd/bases/keda.sh_{}.yaml"
OPERATOR = (
    "prometheus-operator/prometheus-operator/v0.93.0/example/prometheus-operator-crd/monitoring.coreos.com_{}.yaml"
)
PATHS = [
    KEDA.format("scaledjobs"),
    KEDA.format("triggerauthentications"),
    OPERATOR.format("prometheusrules"),
    OPERATOR.format("servicemonitors"),
]
KEYWORDS = ("type", "enum", "pattern", "required", "minimum", "minItems", "minLength")
"""Keywords that are kept as they are."""
KNOWN = {*KEYWORDS, "properties", "items", "additionalProperties", "anyOf", "description", "default", "format"}


def main(base: str = "https://raw.githubusercontent.com") -> None:
    for path in PATHS:
        with urlopen(f"{base}/{path}") as response:
            definition = yaml.safe_load(response)["spec"]
        names, [version] = definition["names"], definition["versions"]
        schema = strict(version["schema"]["openAPIV3Schema"])
        fields = schema["properties"]
        if names["kind"] == "ScaledJob":
            fields["spec"]["properties"]["jobTargetRef"]["properties"]["template"] = True
        fields |= {
            "apiVersion": {"const": f"{definition['group']}/{version['name']}"},
            "kind": {"const": names["kind"]},
        }
        fields["metadata"] = True
        del fields["status"]
        source = {"$comment": f"Made by refresh.py from https://raw.githubusercontent.com/{path}; licence: Apache-2.0."}
        file = Path(__file__).with_name(f"{names['kind']}.json")
        file.write_text(json.dumps(source | schema, indent=1) + "\n")


def strict(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a definition as a JSON Schema that refuses unknown fields."""
    unknown = {keyword for keyword in schema.keys() - KNOWN if not keyword.startswith("x-kubernetes-")}
    assert not unknown, f"keywords that this script leaves out: {unknown}"
    result = {keyword: schema[keyword] for keyword in KEYWORDS if keyword in schema}
    if "anyOf" in schema:
        result["anyOf"] = [strict(choice) for choice in schema["anyOf"]]
    if "items" in schema:
        result["items"] = strict(schema["items"])
    if "properties" in schema:
        result["properties"] = {name: strict(field) for name, field in schema["properties"].items()}
    if schema.get("type") == "object" and not schema.get("x-kubernetes-preserve-unknown-fields"):
        values = schema.get("additionalProperties", False)
        result["additionalProperties"] = strict(values) if isinstance(values, dict) else values
    return result


if __name__ == "__main__":
    main(*sys.argv[1:])
