"""What every command does alike: ask the service, show the answer, say what went wrong."""

import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console

from cli.client import Client, Json, ServiceError
from frs.errors import FrsError

DataFolder = Annotated[
    Path, typer.Option("--data", envvar="FRS_DATA", help="Data folder of `frs up`: where the key lies.")
]
AsJson = Annotated[bool, typer.Option("--json", help="The service's answer as JSON.")]
DEFAULT_DATA_DIR = Path("data")
screen, problems = Console(), Console(stderr=True)


def call_service(data: Path, ask: Callable[[Client], Json]) -> Json:
    try:
        return ask(Client.here(data))
    except (ServiceError, FrsError) as error:
        fail(error)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def fail(error: Any) -> NoReturn:
    problems.print(error.message, style="red", highlight=False, markup=False)
    for line in (*getattr(error, "details", ()), error.hint):
        if line:
            problems.print(line, highlight=False, markup=False)
    raise typer.Exit(1)


def show(answer: Json, draw: Callable[[Json], Any], as_json: bool) -> None:
    if as_json:
        json.dump(answer, sys.stdout, indent=2)
        sys.stdout.write("\n")
    else:
        drawn = draw(answer)
        is_text = isinstance(drawn, str)  # what trainers and users wrote: no markup, and no line broken
        screen.print(drawn, highlight=False, markup=not is_text, soft_wrap=is_text)


def rows(draw: Callable[[Iterable[Json]], Any]) -> Callable[[Json], Any]:
    return lambda answer: draw(answer["data"])
