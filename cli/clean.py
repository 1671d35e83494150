"""`frs clean`: remove old jobs, checkpoints and metrics."""

import re
from typing import Annotated

import typer
from rich.filesize import decimal

from cli.terminal import DEFAULT_DATA_DIR, AsJson, DataFolder, call_service, show
from frs_client import Client, Json

app = typer.Typer()
_SUMMED = ("groups", "skipped", "job_ids", "checkpoints", "metrics", "bytes")
_UNITS = {"h": 1 / 24, "d": 1, "w": 7}


def _days(text: str) -> float:
    """Return the days of an age such as `12h`, `30d` or `8w`. Raises BadParameter."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([hdw])", text)
    if match is None:
        raise typer.BadParameter(f"{text!r} is not an age such as 12h, 30d or 8w")
    return float(match[1]) * _UNITS[match[2]]


@app.command()
def clean(
    older_than: Annotated[str, typer.Option(help="Keep what ended within this time: 12h, 30d or 8w.")],
    jobs: Annotated[bool, typer.Option("--jobs", help="Remove jobs with all their files.")] = False,
    checkpoints: Annotated[
        bool, typer.Option("--checkpoints", help="Remove training checkpoints; students stay.")
    ] = False,
    metrics: Annotated[bool, typer.Option("--metrics", help="Remove metric curves; evaluations stay.")] = False,
    keep_last: Annotated[int, typer.Option(min=0, help="Keep the newest jobs of each owner, this many.")] = 0,
    keep_tag: Annotated[str, typer.Option(help="Keep jobs with this tag.")] = "keep",
    all_owners: Annotated[bool, typer.Option("--all-owners", help="Of all owners; needs an admin key.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Remove; without it, only report what would be removed.")] = False,
    data: DataFolder = DEFAULT_DATA_DIR,
    json_: AsJson = False,
) -> None:
    """Remove old jobs, or their checkpoints or metrics. Jobs with baselines and seed variants are one group."""
    chosen = {"jobs": jobs, "checkpoints": checkpoints, "metrics": metrics}
    contents = [name for name, is_chosen in chosen.items() if is_chosen]
    if not contents:
        raise typer.BadParameter("name what to remove: --jobs, --checkpoints or --metrics")
    rules: Json = {"older_than_days": _days(older_than), "keep_last": keep_last, "keep_tag": keep_tag}
    body = {"contents": contents, **rules, "all_owners": all_owners, "dry_run": not yes}
    show(call_service(data, lambda client: _clean(client, body)), _sentence, json_)


def _clean(client: Client, body: Json) -> Json:
    """Send the request for one part of the run groups after another, and return the sum."""
    total: Json = {}
    while True:
        answer = client.post("/clean", body)
        total = answer | {name: total.get(name, type(answer[name])()) + answer[name] for name in _SUMMED}
        if answer["next_after"] is None:
            return total
        body = body | {"after": answer["next_after"]}


def _sentence(answer: Json) -> str:
    verb = "Would remove" if answer["dry_run"] else "Removed"
    parts = [f"{len(answer['job_ids'])} jobs", f"{answer['checkpoints']} checkpoints", f"{answer['metrics']:,} values"]
    text = f"{verb} {', '.join(parts)}: {decimal(answer['bytes'])}."
    if answer["skipped"]:
        text += f" {answer['skipped']} groups are still needed by other jobs."
    return text + (" Nothing was removed: add --yes." if answer["dry_run"] else "")
