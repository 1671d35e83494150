"""The engine on its own: `python -m frs train spec.yaml`, `plan`, `check`, `shapes`."""

from frs.isolation.early import JAIL

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.status import Status

from frs import events, spec_file
from frs.cli import report_text
from frs.cli.progress import Bar, drawing_bar
from frs.comparison import paired_runs
from frs.dataset.check import check_split as check_split
from frs.dataset.shapes.drawing import draw_dataset
from frs.errors import FrsError, InvalidSpec
from frs.evaluation.report import Report
from frs.isolation import jail
from frs.isolation.process import die_with_parent
from frs.recipes import RECIPES
from frs.resolved import ResolvedSpec, resolve
from frs.spec import JobSpec

app = typer.Typer(no_args_is_help=True, add_completion=True, help=__doc__, pretty_exceptions_enable=False)
screen, problems = Console(), Console(stderr=True)
SpecFile = Annotated[Path | None, typer.Option(help="Resolved spec (JSON), as the worker writes it.", hidden=True)]
EventsDescriptor = Annotated[int | None, typer.Option(help="Write events to this file descriptor.", hidden=True)]


@app.command()
def train(
    recipe: Annotated[
        Path | None, typer.Argument(metavar="SPEC", help="Job spec (YAML or JSON), or a recipe's name.")
    ] = None,
    data: Annotated[Path, typer.Option(help="Folder of data sets.")] = Path("data"),
    models: Annotated[Path, typer.Option(help="Folder of weights.")] = Path("models"),
    workdir: Annotated[
        Path | None, typer.Option(help="Where checkpoints and results go; the run goes on from what is there.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a field: schedule.max_steps=2.")
    ] = None,
    spec: SpecFile = None,
    events_fd: EventsDescriptor = None,
    json_: Annotated[bool, typer.Option("--json", help="Events as JSON lines instead of a bar.")] = False,
) -> None:
    """Run a job spec here, without the service."""
    if events_fd is not None and spec is not None and workdir is not None:
        tell = _telling(events_fd)
        raise SystemExit(_run(ResolvedSpec.model_validate_json(spec.read_bytes()), workdir, tell))
    if recipe is None:
        raise typer.BadParameter("Name a spec file or a recipe.", param_hint="SPEC")
    try:
        job = read_spec(str(recipe), set_ or [])
        resolved = resolve(job, data, models)
    except FrsError as error:
        raise SystemExit(_explain(error)) from None
    folder = workdir or Path("runs") / (job.name or "job").replace(" ", "-")
    code = _run_pairs(resolved, folder, json_) if job.pairs else _run_in(folder, resolved, json_)
    if not json_:
        typer.echo(f"Work folder: {folder}")
    raise SystemExit(code)


@app.command()
def plan(
    recipe: Annotated[
        Path | None, typer.Argument(metavar="SPEC", help="Job spec (YAML or JSON), or a recipe's name.")
    ] = None,
    data: Annotated[Path, typer.Option(help="Folder of data sets.")] = Path("data"),
    models: Annotated[Path, typer.Option(help="Folder of weights.")] = Path("models"),
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a field: schedule.batch_size=2.")
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="One JSON object instead of tables.")] = False,
    spec: SpecFile = None,
    events_fd: EventsDescriptor = None,
) -> None:
    """Check a job spec and take a few steps of it: what it would cost, and what prevents it."""
    if events_fd is not None and spec is not None:
        raise SystemExit(_plan_for_the_worker(spec, _telling(events_fd)))
    if recipe is None:
        raise typer.BadParameter("Name a spec file or a recipe.", param_hint="SPEC")
    try:
        resolved = resolve(read_spec(str(recipe), set_ or []), data, models)
    except FrsError as error:
        raise SystemExit(_explain(error)) from None
    raise SystemExit(_plan(resolved, json_))


@app.command()
def compare(
    student: Annotated[list[Path], typer.Option(help="Work folder of a distilled run; one for each seed.")],
    baseline: Annotated[list[Path], typer.Option(help="Work folder of the same student trained alone, same seeds.")],
    output: Annotated[Path, typer.Option(help="Folder for report and pictures.")] = Path("runs/comparison"),
    json_: Annotated[bool, typer.Option("--json", help="Events as JSON lines instead of a bar.")] = False,
) -> None:
    """Compare runs that have ended: report, intervals and pictures."""
    raise SystemExit(_compare(student, baseline, output, json_))


@app.command()
def check(
    images: Annotated[Path, typer.Argument(help="Folder of images.")],
    annotations: Annotated[Path, typer.Argument(help="COCO annotation file.")],
    json_: Annotated[bool, typer.Option("--json", help="The whole report as JSON.")] = False,
) -> None:
    """Check one split of a data set: every file, every box."""
    try:
        with drawing_bar("checking") as tick:
            report = check_split(images, annotations, progress=tick)
    except FrsError as error:
        raise SystemExit(_explain(error)) from None
    if json_:
        typer.echo(report.model_dump_json(indent=2))
    else:
        typer.echo(
            f"{report.counts.images} images, {report.counts.boxes} boxes, classes {', '.join(report.class_names)}"
        )
        for issue in report.issues:
            typer.echo(f"{issue.code}: {issue.message}")
        typer.echo(f"{report.invalid_images} images with issues")
    raise SystemExit(1 if report.issue_counts else 0)


@app.command()
def shapes(
    folder: Annotated[Path, typer.Argument(help="Where to draw.")],
    train: Annotated[int, typer.Option(min=1)] = 400,
    val: Annotated[int, typer.Option(min=1)] = 150,
    size: Annotated[int, typer.Option(min=64, max=1024, help="Width and height in pixels.")] = 160,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Draw a data set of shapes in COCO layout."""
    with drawing_bar("drawing") as tick:
        draw_dataset(folder, train=train, val=val, size=size, seed=seed, progress=tick)
    typer.echo(f"{train} training and {val} validation images in {folder}")


@app.command()
def import_weights(
    source: Annotated[Path, typer.Argument(help="A torch or safetensors file from anywhere.")],
    target: Annotated[Path, typer.Argument(help="The safetensors file to write.")],
    sha256: Annotated[str | None, typer.Option(help="What SOURCE must hash to.")] = None,
    events_fd: EventsDescriptor = None,
) -> None:
    """Take tensors and class names out of a file, without network and within bounds; says so as one JSON object."""
    die_with_parent()
    if JAIL is None:
        jail.restart_isolated()
    from frs.detectors import import_weights as weights_import

    tell = None if events_fd is None else _telling(events_fd)
    raise SystemExit(weights_import.run(source, target, sha256, tell))


def read_spec(name: str, changes: list[str]) -> JobSpec:
    """A spec from a file or a recipe, with `--set` changes. Raises InvalidSpec naming the field."""
    if name in RECIPES:
        content = RECIPES[name].spec_as_dict()
    elif Path(name).is_file():
        content = spec_file.read(Path(name))
    else:
        raise InvalidSpec(f"{name} is neither a file nor a recipe.", f"Recipes: {', '.join(RECIPES)}.")
    try:
        spec = JobSpec.model_validate(spec_file.apply_changes(content, changes))
    except ValidationError as error:
        said = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'spec'}: {e['msg']}" for e in error.errors())
        raise InvalidSpec(f"{name}: {said}.") from None
    if spec.kind == "compare":
        raise InvalidSpec("Runs are compared by `python -m frs compare`.", "Or set `baseline` in a `distill` spec.")
    return spec


def _run_pairs(spec: ResolvedSpec, folder: Path, json_: bool) -> int:
    """Every run that has not ended yet, one after the other, then their comparison."""
    runs = list(paired_runs.planned_runs(spec))
    for run in runs:
        try:
            done = paired_runs.is_done(folder / run.name, run.spec)
        except FrsError as error:
            return _explain(error)
        if not done and (code := _run_in(folder / run.name, run.spec, json_)):
            return code
    folders = {role: [folder / run.name for run in runs if run.role == role] for role in ("student", "baseline")}
    return _compare(folders["student"], folders["baseline"], folder, json_)


def _compare(students: list[Path], baselines: list[Path], output: Path, json_: bool) -> int:
    try:
        spec = paired_runs.comparison_spec(students, baselines)
    except FrsError as error:
        return _explain(error)
    code = _run_in(output, spec, json_)
    if not code and not json_:
        report = Report.model_validate_json((output / "report.json").read_bytes())
        screen.print(report_text.table(report))
        screen.print(report_text.conclusion(report), highlight=False, markup=False)
    return code


def _run_in(folder: Path, spec: ResolvedSpec, json_: bool) -> int:
    """With a bar or JSON lines, and everything told kept in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / paired_runs.JOURNAL).open("a") as journal:
        if json_:
            code = _run(spec, folder, events.to_all(events.lines_to(journal), events.lines_to(sys.stdout)))
        else:
            with Bar() as bar:
                code = _run(spec, folder, events.to_all(events.lines_to(journal), bar))
    if code == 0:  # before, the folder may be another spec's, which the engine refuses to touch
        (folder / paired_runs.SPEC).write_text(spec.model_dump_json())
    return code


def _run(spec: ResolvedSpec, workdir: Path, emit: events.Emit) -> int:
    _hide_gpus(spec)
    # torch takes seconds, and `check` does without
    if spec.job.resources.trainers > 1 and spec.run_group is None:
        from frs.engine.launcher import run
    else:
        from frs.engine.trainer import run
    return run(spec, workdir, emit)


def _plan(spec: ResolvedSpec, json_: bool) -> int:
    _hide_gpus(spec)
    from frs.cli import plan_tables
    from frs.engine import trainer
    from frs.preflight import plan

    trainer.silence_libraries()
    with problems.status("starting") as status:
        forecast = plan.estimate(spec, lambda event: _tell_phase(event, status))
    if json_:
        typer.echo(forecast.model_dump_json(indent=2))
    else:
        for table in plan_tables.tables(forecast):
            Console().print(table, "")
    return forecast.exit_code


def _plan_for_the_worker(file: Path, tell: events.Emit) -> int:
    spec = ResolvedSpec.model_validate_json(file.read_bytes())
    _hide_gpus(spec)
    from frs.engine import trainer
    from frs.preflight import plan

    trainer.silence_libraries()
    forecast = plan.estimate(spec, tell)
    tell(events.Facts(values=forecast.model_dump(mode="json")))
    tell(events.Outcome(status="succeeded"))
    return 0


def _telling(events_fd: int) -> events.Emit:
    """For a process of the worker's, which must not outlive it."""
    die_with_parent()
    tell = events.lines_to(os.fdopen(events_fd, "w", buffering=1))
    if JAIL is not None:
        tell(events.Log(message=str(JAIL)))
    return tell


def _tell_phase(event: events.Event, status: Status) -> None:
    if isinstance(event, events.Phase):
        status.update(event.phase)


def _hide_gpus(spec: ResolvedSpec) -> None:
    if spec.job.resources.devices == 0:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # mmengine takes a GPU wherever it sees one, and looks when imported


def _explain(error: FrsError) -> int:
    problems.print(f"[red]{error.code}[/]: {escape(error.message)}", highlight=False)
    if error.hint:
        problems.print(error.hint, highlight=False, markup=False)
    return 2
