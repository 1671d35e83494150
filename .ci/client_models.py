"""Write client/frs_client/models.py, the types of the API's OpenAPI document. Needs pip and a package index.

The file has the SHA-256 of the schemas that it was made from, by which a test finds out that it is stale.
"""

import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from api.app import create_app
from store.initialise import initialise
from store.settings import Settings

ROOT = Path(__file__).parents[1]
MODELS = ROOT / "client" / "frs_client" / "models.py"
HEAD = '"""The types of the API, written by `make client` from its OpenAPI document."""\n\n# SHA-256 of the schemas: '
GENERATOR = "datamodel-code-generator==0.89.0"
OPTIONS = (
    "--input-file-type=openapi",
    "--output-model-type=pydantic_v2.BaseModel",
    "--base-class=frs_client.base.Model",
    "--target-python-version=3.11",
    "--formatters=builtin",
    "--disable-timestamp",
    "--use-standard-collections",
    "--use-union-operator",
    "--use-tuple-for-fixed-items",
    "--use-field-description",
    "--use-schema-description",
    "--use-single-line-docstring",
    "--use-one-literal-as-default",
    "--use-double-quotes",
    "--enum-field-as-literal=all",
    "--collapse-root-models",
    "--strict-nullable",
)
RENAMED = {
    "api__compare__schemas__Comparison": "SideBySide",
    "api__queue__schemas__Counts": "QueueCounts",
    "frs__dataset__report__Counts": "DatasetCounts",
    "frs__dataset__report__Report": "DatasetReport",
    "frs__evaluation__report__Report": "Report",
    "frs__evaluation__verdict__Comparison": "Comparison",
}
"""Names of the schemas whose Python classes share a name."""
DROPPED = ("Page_", "ProblemDetails", "Problem")
"""Schemas without a model: the client returns the rows of pages, and raises ApiError."""
TAG = "type"
"""The property that tells the schemas of a union apart; its values are those of its schema alone."""
CONSTRAINTS = {
    *("title", "examples", "additionalProperties", "discriminator", "propertyNames", "patternProperties"),
    *("pattern", "multipleOf"),
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minLength", "maxLength", "minItems", "maxItems"),
    *("uniqueItems", "minProperties", "maxProperties"),
}
"""Keywords that are left out: the service checks requests, and its messages have hints."""


def main() -> None:
    schemas = current_schemas()
    document = {"openapi": "3.1.0", "info": {"title": "frs", "version": "1"}, "paths": {}}
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "openapi.json"
        source.write_text(json.dumps(document | {"components": {"schemas": schemas}}))
        subprocess.run([sys.executable, "-m", "venv", f"{folder}/venv"], check=True)
        subprocess.run([f"{folder}/venv/bin/pip", "install", "--quiet", GENERATOR], check=True)
        command = [f"{folder}/venv/bin/datamodel-codegen", "--input", source, "--output", MODELS, *OPTIONS]
        subprocess.run(command, check=True)
    _, _, code = MODELS.read_text().partition("from __future__")
    MODELS.write_text(f"{HEAD}{digest(schemas)}\n\nfrom __future__{code}")
    subprocess.run([sys.executable, "-m", "ruff", "check", "--quiet", "--fix-only", MODELS], check=True)
    subprocess.run([sys.executable, "-m", "ruff", "format", "--quiet", MODELS], check=True)


def current_schemas() -> dict[str, Any]:
    """Return the schemas of the API's document under the names and in the form of the client."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(data=Path(folder) / "data")
        initialise(settings)
        app = create_app(settings)
        schemas = app.openapi()["components"]["schemas"]
        app.state.context.close()
    return {
        RENAMED.get(name, name): simplify(schema) for name, schema in schemas.items() if not name.startswith(DROPPED)
    }


def digest(schemas: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(schemas, sort_keys=True).encode()).hexdigest()


def simplify(schema: Any) -> Any:
    """Return the schema without constraints. Enumerations, other than tags, also accept the texts of later versions."""
    if isinstance(schema, list):
        return [simplify(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        schema = schema | {"$ref": f"#/components/schemas/{RENAMED.get(name, name)}"}
    if "properties" in schema:
        properties = {
            name: _rest(value) if name == TAG else simplify(value) for name, value in schema["properties"].items()
        }
        return _rest(schema, "properties") | {"properties": properties}
    if "enum" in schema and schema.get("type") == "string":
        known, later = {"enum": schema["enum"], "type": "string"}, {"type": "string"}
        return _rest(schema, "enum", "type") | {"anyOf": [known, later]}
    if isinstance(schema.get("default"), dict):  # the defaults of the fields are those of their class
        schema = schema | {"default": {}}
    return _rest(schema)


def _rest(schema: dict[str, Any], *without: str) -> dict[str, Any]:
    left_out = {*CONSTRAINTS, *without}
    if "prefixItems" in schema:  # a tuple
        left_out -= {"minItems", "maxItems"}
    by_pattern = schema.get("patternProperties", {}).values()  # of a dictionary whose keys have a pattern
    values = next(iter(by_pattern), schema.get("additionalProperties"))
    kept = {name: simplify(value) for name, value in schema.items() if name not in left_out}
    return kept | ({"additionalProperties": simplify(values)} if isinstance(values, dict) else {})


if __name__ == "__main__":
    main()
