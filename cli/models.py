"""Published weights: which there are, and bringing them into the models folder."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table

from cli import downloading
from cli.downloading import DownloadError
from cli.terminal import DEFAULT_DATA_DIR, problems, screen
from frs import published_weights
from frs.files import digest
from frs.published_weights import PublishedFile

app = typer.Typer(no_args_is_help=True, help="Published weights that the paper's recipes need.")
Output = Annotated[
    Path | None, typer.Option(envvar="FRS_MODELS_ROOT", help="The models folder [<data>/models].", file_okay=False)
]
Data = Annotated[Path, typer.Option("--data", envvar="FRS_DATA", help="Data folder of `frs up`.")]


def known(incomplete: str) -> list[str]:
    return [name for name in published_weights.published_names() if name.startswith(incomplete)]


@app.command("list")
def list_models(output: Output = None, data: Data = DEFAULT_DATA_DIR) -> None:
    """Which published weights the recipes need, and which of them are there."""
    folder = output or data / "models"
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("file", no_wrap=True)  # it is what pull takes
    table.add_column("needed by")
    table.add_column(f"in {folder}", overflow="fold")
    for row in published_weights.published_files():
        table.add_row(row.file, "\n".join(row.recipes), _state(row, folder / row.file))
    screen.print(table, highlight=False, markup=False)


@app.command()
def pull(
    names: Annotated[list[str], typer.Argument(metavar="RECIPE_OR_FILE...", autocompletion=known)],
    output: Output = None,
    data: Data = DEFAULT_DATA_DIR,
    mirror: Annotated[str | None, typer.Option(help="A folder with the same files, over HTTP: URL/FILE.")] = None,
    any_hash: Annotated[bool, typer.Option("--any-hash", help="Keep it, whatever its sha256 is.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be fetched.")] = False,
) -> None:
    """Bring what a recipe needs into the models folder. What is there stays; what broke off goes on."""
    folder = output or data / "models"
    try:
        succeeded = [_pulled(row, folder / row.file, mirror, any_hash, dry_run) for row in _wanted(names)]
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    raise typer.Exit(0 if all(succeeded) else 1)


def _wanted(names: list[str]) -> list[PublishedFile]:
    for name in names:
        if not published_weights.files_for(name):
            problems.print(f"No recipe and no published file is called {name!r}.", style="red", highlight=False)
            problems.print(
                f"There are: {', '.join(published_weights.published_names())}.", highlight=False, markup=False
            )
            raise typer.Exit(1)
    return list(dict.fromkeys(row for name in names for row in published_weights.files_for(name)))


def _pulled(row: PublishedFile, target: Path, mirror: str | None, any_hash: bool, dry_run: bool) -> bool:
    """Whether it is there now, or would be."""
    urls = [f"{mirror.rstrip('/')}/{row.file}"] if mirror else row.urls
    state = _state(row, target)
    if state == "there":
        _say(f"{target}: there")
        return True
    if state == "another file":
        problems.print(f"{target} is another file: its sha256 does not begin with {row.sha256_prefix}.", style="red")
        problems.print("Move it away, and pull again; nothing was changed.", highlight=False)
        return False
    if dry_run:
        _say(f"{target} from {urls[0]}")
        return True
    try:
        with _bar(row.file) as progress:
            sha256 = downloading.fetch(urls, target, row.sha256_prefix, progress, any_hash=any_hash)
    except DownloadError as error:
        problems.print(error.message, style="red", highlight=False, markup=False, soft_wrap=True)
        problems.print(error.hint, highlight=False, markup=False, soft_wrap=True)
        return False
    _say(f"{target}: sha256 {sha256}")
    return True


def _state(row: PublishedFile, target: Path) -> str:
    if not target.is_file():
        part = target.with_name(f"{target.name}.part")
        return f"begun, {part.stat().st_size:,} bytes" if part.is_file() else "missing"
    sha256 = digest(target)
    right = sha256.startswith(row.sha256_prefix) or sha256 == downloading.recorded_sha256(target)
    return "there" if right else "another file"


@contextmanager
def _bar(name: str) -> Iterator[Callable[[int, int | None], None]]:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=problems, transient=True) as progress:
        task = progress.add_task(name, total=None)
        yield lambda have, total: progress.update(task, completed=have, total=total)


def _say(line: str) -> None:
    screen.print(line, highlight=False, markup=False, soft_wrap=True)
