"""`frs sweep` and `frs sweeps`: search over fields of a spec, and confirm the best setting on new seeds."""

import math
import re
from collections.abc import Iterable
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.table import Table
from rich.text import Text

from cli.arguments import Changes, SpecSource, load_spec
from cli.terminal import DEFAULT_DATA_DIR, AsJson, DataFolder, call_service, render_rows, show, stderr
from frs import spec_file
from frs.errors import InvalidSpec
from frs_client import Client, Json
from frs_client.requests import path_of
from frs_client.sync.sweeps import ACTIVE, POLL_SECONDS

app = typer.Typer()
sweeps = typer.Typer(no_args_is_help=True, help="List, show, stop, resume and delete sweeps.")
app.add_typer(sweeps, name="sweeps")
_RANGE = re.compile(r"(uniform|log_uniform|int_uniform)\(([^,()]+),([^,()]+)\)")
SweepId = Annotated[str, typer.Argument(metavar="ID")]
Over = Annotated[
    list[str],
    typer.Option(
        "--over",
        metavar="FIELD=VALUES",
        help="Field to search: distillation.feature_ratio=10,30,100, or, with --random and --asha, "
        "schedule.optimizer.learning_rate=log_uniform(1e-4,1e-2), uniform(a,b) or int_uniform(a,b); repeatable.",
    ),
]


@app.command()
def sweep(
    spec: SpecSource,
    over: Over,
    set_: Changes = None,
    random: Annotated[int | None, typer.Option(help="Draw this many random settings instead of a grid.")] = None,
    asha: Annotated[
        int | None, typer.Option(help="Draw this many random settings, and train only the best ones for long (ASHA).")
    ] = None,
    seeds: Annotated[int | None, typer.Option(show_default="2", help="Tuning seeds of each setting.")] = None,
    confirm_seeds: Annotated[int | None, typer.Option(show_default="3", help="New seeds of the verdict.")] = None,
    max_jobs: Annotated[int | None, typer.Option(help="Budget of trials.")] = None,
    max_minutes: Annotated[int | None, typer.Option(help="Budget of the trials' running time, summed.")] = None,
    concurrency: Annotated[int | None, typer.Option(show_default="2", help="Trials at a time.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the sweep.")] = None,
    wait: Annotated[bool, typer.Option(help="Wait for the verdict.")] = False,
    data: DataFolder = DEFAULT_DATA_DIR,
    json_: AsJson = False,
) -> None:
    """Search over fields of a spec. Every setting is checked before the first job is posted.

    Exit status of --wait: 1 if the sweep fails or is stopped.
    """
    options: Json = {
        "seeds": seeds,
        "confirm_seeds": confirm_seeds,
        "max_jobs": max_jobs,
        "max_minutes": max_minutes,
        "concurrency": concurrency,
        "name": name,
    }

    def post(client: Client) -> Json:
        body = {key: value for key, value in (options | _strategy(random, asha)).items() if value is not None}
        body |= {"spec": load_spec(client, spec, set_), "space": _space(over)}
        posted = client.post("/sweeps", body)
        return _wait(client, posted["id"], quiet=json_) if wait else posted

    answer = call_service(data, post)
    show(answer, _details if wait else _summary, json_)
    raise typer.Exit(1 if wait and answer["status"] != "succeeded" else 0)


@sweeps.command("list")
def list_sweeps(
    limit: Annotated[int, typer.Option(min=1, max=200)] = 20, data: DataFolder = DEFAULT_DATA_DIR, json_: AsJson = False
) -> None:
    """List the newest sweeps."""
    show(call_service(data, lambda client: client.get("/sweeps", limit=limit)), render_rows(_rows), json_)


@sweeps.command("show")
def show_sweep(id: SweepId, data: DataFolder = DEFAULT_DATA_DIR, json_: AsJson = False) -> None:
    """Show a sweep: its settings by rank, with intervals, and the verdict."""
    show(call_service(data, lambda client: client.get(path_of("sweeps", id))), _details, json_)


@sweeps.command("stop")
def stop_sweep(id: SweepId, data: DataFolder = DEFAULT_DATA_DIR, json_: AsJson = False) -> None:
    """Stop a sweep: its jobs that have not ended are paused."""
    show(call_service(data, lambda client: client.post(path_of("sweeps", id, "stop"))), _summary, json_)


@sweeps.command("resume")
def resume_sweep(id: SweepId, data: DataFolder = DEFAULT_DATA_DIR, json_: AsJson = False) -> None:
    """Continue a sweep that was stopped or has failed."""
    show(call_service(data, lambda client: client.post(path_of("sweeps", id, "resume"))), _summary, json_)


@sweeps.command("delete")
def delete_sweep(
    id: SweepId,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    data: DataFolder = DEFAULT_DATA_DIR,
    json_: AsJson = False,
) -> None:
    """Delete a sweep that is not active. Its jobs are kept."""
    if not yes:
        typer.confirm(f"Delete sweep {id}?", abort=True, err=True)
    call_service(data, lambda client: client.delete(path_of("sweeps", id)))
    show({"deleted": id}, lambda answer: f"Deleted {answer['deleted']}.", json_)


def _strategy(random: int | None, asha: int | None) -> Json:
    if random is not None and asha is not None:
        raise InvalidSpec("--random and --asha exclude each other.", "Use one of them.")
    if asha is not None:
        return {"strategy": "asha", "samples": asha}
    return {} if random is None else {"strategy": "random", "samples": random}


def _space(options: list[str]) -> Json:
    """Return the values of each field. Raises InvalidSpec."""
    space: Json = {}
    for option in options:
        field, values = _dimension(option)
        if field in space:
            hint = f"Give all values of {field} in one option, separated by commas."
            raise InvalidSpec(f"--over {option}: the field was given before.", hint)
        space[field] = values
    return space


def _dimension(option: str) -> tuple[str, Any]:
    """Return the field of `FIELD=VALUES` and its values. Raises InvalidSpec."""
    field, equals, text = option.partition("=")
    if not equals:
        raise InvalidSpec(f"--over {option}: expected FIELD=VALUES.", "For example --over schedule.epochs=12,24.")
    match = _RANGE.fullmatch(text.replace(" ", ""))
    if match is None:
        return field, spec_file.parse(f"[{text}]", f"--over {option}")
    number = int if match[1] == "int_uniform" else float
    try:
        ends = [number(match[2]), number(match[3])]
        is_valid = all(map(math.isfinite, ends))
    except (ValueError, OverflowError):
        is_valid = False
    if not is_valid:
        raise InvalidSpec(f"--over {option}: the ends of the range are not numbers.", f"For example {match[1]}(1,8).")
    return field, {match[1]: ends}


def _wait(client: Client, sweep_id: str, quiet: bool) -> Json:
    """Poll the sweep until it is not active any more, and return it. Print its progress unless `quiet`."""
    printed = ""
    for answer in client.poll(path_of("sweeps", sweep_id), POLL_SECONDS):
        if not quiet and (line := _progress(answer)) != printed:
            stderr.print(printed := line, highlight=False, markup=False)
        if answer["status"] not in ACTIVE:
            break
    return answer


def _rows(rows: Iterable[Json]) -> Table:
    table = _table("id", "status", "trials", "failed", "settings", "minutes", "name")
    for row in rows:
        trials = f"{row['trials_ended']}/{row['trials_posted']}"
        numbers = (str(row["trials_failed"]), str(row["settings"]), f"{row['minutes']:.0f}")
        table.add_row(row["id"], row["status"], trials, *numbers, Text(row["name"] or ""))
    return table


def _summary(answer: Json) -> Group:
    return Group(Text(_progress(answer)), *_error(answer))


def _progress(answer: Json) -> str:
    trials = f"{answer['trials_ended']} of {answer['trials_posted']} posted trials have ended"
    failed = f", {answer['trials_failed']} without a result" if answer["trials_failed"] else ""
    return f"{answer['id']}  {answer['status']}: {answer['settings']} settings, {trials}{failed}."


def _details(answer: Json) -> Group:
    """Return the settings by rank, then the verdict."""
    fields = list(answer["spec"]["space"])
    table = _table("setting", *fields, "epochs", "seeds", "mAP", "95 % interval")
    for row in answer["table"]:
        is_best = row == answer["best"]
        interval, mAP = row["interval"], row["mAP"]
        table.add_row(
            f"{row['setting']}{' *' if is_best else ''}",
            *(Text(str(row["values"][field])) for field in fields),
            str(row["epochs"] or ""),
            str(row["seeds"]),
            "" if mAP is None else f"{100 * mAP:.1f}",
            "" if interval is None else f"{100 * interval['low']:.1f} to {100 * interval['high']:.1f}",
            style="bold" if is_best else None,
        )
    return Group(Text(_progress(answer)), table, *_error(answer), *_verdict(answer["confirmation"]))


def _verdict(confirmation: Json | None) -> list[Text]:
    if confirmation is None:
        return []
    first, last = confirmation["first_seed"], confirmation["first_seed"] + confirmation["seeds"] - 1
    where = f"Confirmed by {confirmation['job_id'] or 'a job that was deleted'} on seeds {first} to {last}"
    if confirmation["verdict"] is None:
        return [Text(f"{where}: no result yet.")]
    mAP = "" if confirmation["mAP"] is None else f"mAP {100 * confirmation['mAP']:.1f}"
    gain = ""
    if comparison := confirmation["comparison"]:
        interval = confirmation["interval"]
        bounds = f"{100 * interval['low']:+.1f} to {100 * interval['high']:+.1f}, over {confirmation['verdict_by']}"
        gain = f", {100 * comparison['gain']:+.1f} points over the baseline ({bounds})"
    verdict = confirmation["verdict"].replace("_", " ")
    return [Text(f"{where}: {verdict}; {mAP}{gain}."), Text(confirmation["caveat"])]


def _error(answer: Json) -> list[Text]:
    error = answer["error"]
    return [Text(f"{error['code']}: {error['message']} {error['hint']}", "red")] if error else []


def _table(*headings: str) -> Table:
    table = Table(box=None, header_style="bold")
    for heading in headings:
        table.add_column(Text(heading), overflow="fold")
    return table
