"""Arguments shared by several commands, and their shell completion."""

import math
from pathlib import Path
from typing import Annotated

import typer

from frs import spec_file
from frs_client import ApiError, Client, Json, ServiceError
from frs_client.requests import NOT_FOUND, NOT_IN_PATHS, path_of


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


def finite(value: float | None) -> float | None:
    """Return the value of an option: its callback. Raises BadParameter for `inf` and `nan`, which JSON cannot hold."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number.")
    return value


def load_spec(client: Client, spec: str, changes: list[str] | None) -> Json:
    """Return the content of the file `spec`, or of the recipe with that name, with `changes` applied.

    Raises InvalidSpec if the file or a change is invalid, and ServiceError if there is neither.
    """
    content = spec_file.read(Path(spec)) if Path(spec).is_file() else _recipe_spec(client, spec)
    return spec_file.apply_changes(content, changes or [])


def find(client: Client, collection: str, id_or_name: str) -> Json | None:
    """Return a resource of a collection such as `datasets`; None if there is none of this id or name."""
    if id_or_name in NOT_IN_PATHS:
        return None
    try:
        return client.get(path_of(collection, id_or_name))
    except ApiError as error:
        if error.status == NOT_FOUND:
            return None
        raise


def _recipe_spec(client: Client, name: str) -> Json:
    recipe = find(client, "recipes", name)
    if recipe is None:
        raise ServiceError(f"{name} is neither a file nor a recipe.", "`frs recipes` lists the recipes.")
    spec: Json = recipe["spec"]
    return spec


def _completions(path: str, field: str, incomplete: str) -> list[str]:
    try:
        rows = Client().get(path)["data"]
    except ServiceError:
        return []
    return [row[field] for row in rows if row[field].startswith(incomplete)]
