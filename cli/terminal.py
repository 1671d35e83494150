"""Shared by all commands: call the service, print the answer, print errors."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console

from frs.errors import FrsError
from frs_client import Client, Json, ServiceError, credentials

DataFolder = Annotated[
    Path, typer.Option("--data", envvar="FRS_DATA", help="Data folder of `frs up`, which holds the API key.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the service's answer as JSON.")]
DEFAULT_DATA_DIR = credentials.DEFAULT_DATA_DIR
stdout, stderr = Console(), Console(stderr=True)
UNLIMITED_WIDTH = 10_000
"""Columns of an output that is not a terminal, so that pipes and files receive tables uncut."""


def call_service(data: Path, request: Callable[[Client], Json]) -> Json:
    """Return `request(client)`. Print the error and exit with 1 if it fails, with 130 on Ctrl-C."""
    with exit_on_error():
        return request(Client(data=data))


@contextmanager
def exit_on_error() -> Iterator[None]:
    """Print the error that ends the block and exit with 1; exit with 130 on Ctrl-C."""
    try:
        yield
    except (ServiceError, FrsError) as error:
        fail(error)
    except OSError as error:
        reason = error.strerror or error
        fail(ServiceError(f"{error.filename} cannot be read or written: {reason}." if error.filename else f"{reason}."))
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def fail(error: Any) -> NoReturn:
    """Print the error's message, details and hint to stderr and exit with 1."""
    stderr.print(error.message, style="red", highlight=False, markup=False)
    for line in (*getattr(error, "details", ()), error.hint):
        if line:
            stderr.print(line, highlight=False, markup=False)
    raise typer.Exit(1)


def show(answer: Json, draw: Callable[[Json], Any], as_json: bool) -> None:
    """Print `answer` as JSON, or as `draw` renders it."""
    if as_json:
        json.dump(answer, sys.stdout, indent=2)
        sys.stdout.write("\n")
    else:
        with exit_on_error():
            rendered = draw(answer)
        is_text = isinstance(rendered, str)  # text from trainers and users: no markup, no line wrapping
        console = stdout if stdout.is_terminal else Console(file=stdout.file, width=UNLIMITED_WIDTH)
        console.print(rendered, highlight=False, markup=not is_text, soft_wrap=is_text)


def render_rows(draw: Callable[[Iterable[Json]], Any]) -> Callable[[Json], Any]:
    """Return a function that renders the rows of a list answer (`{"data": [...]}`) with `draw`."""
    return lambda answer: draw(answer["data"])
