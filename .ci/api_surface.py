"""Write docs/released-api.txt, the public names of the API: operations, parameters, fields and their values.

Run it at a release. A test compares the names with those of the current API, so that a name that clients may use is
not removed by accident.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from api.app import create_app
from store.initialise import initialise
from store.settings import Settings

RELEASED = Path(__file__).parents[1] / "docs" / "released-api.txt"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(data=Path(folder) / "data")
        initialise(settings)
        app = create_app(settings)
        RELEASED.write_text("\n".join(sorted(set(names(app.openapi())))) + "\n")
        app.state.context.close()


def names(document: dict[str, Any]) -> Iterator[str]:
    """Yield `GET /jobs`, `GET /jobs ?name`, `Job.status` and `Job.status = queued` for each part of the document."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}"
            for parameter in operation.get("parameters", ()):
                yield f"{method.upper()} {path} ?{parameter['name']}"
    for schema, content in document["components"]["schemas"].items():
        if "enum" in content:
            yield from (f"{schema} = {value}" for value in content["enum"])
        for name, definition in content.get("properties", {}).items():
            yield f"{schema}.{name}"
            yield from (f"{schema}.{name} = {value}" for value in _values(definition))


def _values(definition: dict[str, Any]) -> Iterator[Any]:
    """Yield the values of an enumeration, also of one in a list or in an alternative."""
    yield from definition.get("enum", ())
    for inner in (*definition.get("anyOf", ()), *definition.get("oneOf", ()), definition.get("items", {})):
        if isinstance(inner, dict) and inner:
            yield from _values(inner)


if __name__ == "__main__":
    main()
