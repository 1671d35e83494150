"""Arguments that several commands take, and what the tab key offers for them."""

import os
from pathlib import Path
from typing import Annotated

import typer

from cli.client import Client, Json, ServiceError
from cli.terminal import DEFAULT_DATA_DIR
from frs import spec_file


def job_ids(incomplete: str) -> list[str]:
    return _completions("/jobs", "id", incomplete)


def recipe_names(incomplete: str) -> list[str]:
    return _completions("/recipes", "name", incomplete)


JobId = Annotated[str, typer.Argument(metavar="ID", autocompletion=job_ids)]
SpecSource = Annotated[
    str,
    typer.Argument(metavar="SPEC", help="Spec file (YAML or JSON) or a recipe's name.", autocompletion=recipe_names),
]
Changes = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a field: schedule.epochs=4.")
]


def content_of(client: Client, spec: str, changes: list[str] | None) -> Json:
    """What the file holds, or the recipe of that name, with the changes. Raises InvalidSpec, ServiceError."""
    content = spec_file.read(Path(spec)) if Path(spec).is_file() else client.get(f"/recipes/{spec}")["spec"]
    return spec_file.apply_changes(content, changes or [])


def _completions(path: str, field: str, incomplete: str) -> list[str]:
    try:
        rows = Client.here(Path(os.environ.get("FRS_DATA", DEFAULT_DATA_DIR))).get(path)["data"]
    except ServiceError:
        return []
    return [row[field] for row in rows if row[field].startswith(incomplete)]
