"""Arguments shared by several commands, and their shell completion."""

from pathlib import Path
from typing import Annotated

import typer

from frs import spec_file
from frs_client import Client, Json, ServiceError


def job_ids(incomplete: str) -> list[str]:
    """Return the ids of the newest jobs that start with `incomplete`; empty if the service does not answer."""
    return _completions("/jobs", "id", incomplete)


def recipe_names(incomplete: str) -> list[str]:
    """Return the recipe names that start with `incomplete`; empty if the service does not answer."""
    return _completions("/recipes", "name", incomplete)


JobId = Annotated[str, typer.Argument(metavar="ID", autocompletion=job_ids)]
SpecSource = Annotated[
    str,
    typer.Argument(metavar="SPEC", help="Spec file (YAML or JSON) or recipe name.", autocompletion=recipe_names),
]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a spec field, e.g. schedule.epochs=4; repeatable."),
]


def load_spec(client: Client, spec: str, changes: list[str] | None) -> Json:
    """Return the content of the file `spec`, or of the recipe with that name, with `changes` applied.

    Raises InvalidSpec if the file or a change is invalid, and ServiceError if there is no such recipe.
    """
    content = spec_file.read(Path(spec)) if Path(spec).is_file() else client.get(f"/recipes/{spec}")["spec"]
    return spec_file.apply_changes(content, changes or [])


def _completions(path: str, field: str, incomplete: str) -> list[str]:
    try:
        rows = Client().get(path)["data"]
    except ServiceError:
        return []
    return [row[field] for row in rows if row[field].startswith(incomplete)]
