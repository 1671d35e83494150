"""Run the engine without the service: `python -m frs train spec.yaml`, `plan`, `check`, `shapes`."""

from frs.isolation.early import JAIL

import os
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from frs import events, host_check, spec_file
from frs.cli import running
from frs.cli.console import output_console, print_error
from frs.cli.doctor import check_engine
from frs.cli.join import join
from frs.cli.planning import plan_for_worker, print_plan
from frs.cli.progress import drawing_bar
from frs.dataset.check import check_split as check_split
from frs.dataset.shapes.drawing import draw_dataset
from frs.errors import FrsError, InvalidSpec
from frs.isolation import jail
from frs.isolation.process import die_with_parent
from frs.recipes import RECIPES
from frs.resolved import ResolvedSpec, resolve
from frs.spec import JobSpec
from frs.unknown_fields import describe_unknown_field

app = typer.Typer(no_args_is_help=True, add_completion=True, help=__doc__, pretty_exceptions_enable=False)
SpecFile = Annotated[Path | None, typer.Option(help="Resolved spec (JSON) from the worker.", hidden=True)]
EventsDescriptor = Annotated[int | None, typer.Option(help="Write events to this file descriptor.", hidden=True)]


@app.command()
def train(
    recipe: Annotated[
        Path | None, typer.Argument(metavar="SPEC", help="Job spec (YAML or JSON) or the name of a recipe.")
    ] = None,
    data: Annotated[Path, typer.Option(help="Folder of data sets.")] = Path("data"),
    models: Annotated[Path, typer.Option(help="Folder of weights.")] = Path("models"),
    workdir: Annotated[
        Path | None, typer.Option(help="Folder of checkpoints and results; the run resumes from its newest checkpoint.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a field, e.g. schedule.max_steps=2."),
    ] = None,
    spec: SpecFile = None,
    events_fd: EventsDescriptor = None,
    json_: Annotated[bool, typer.Option("--json", help="Print events as JSON lines instead of a bar.")] = False,
) -> None:
    """Run a job spec on this machine, without the service."""
    if events_fd is not None and spec is not None and workdir is not None:
        emit = _worker_emit(events_fd)
        raise SystemExit(running.run(ResolvedSpec.model_validate_json(spec.read_bytes()), workdir, emit))
    if recipe is None:
        raise typer.BadParameter("Name a spec file or a recipe.", param_hint="SPEC")
    try:
        job = read_spec(str(recipe), set_ or [])
        resolved = resolve(job, data, models)
    except FrsError as error:
        raise SystemExit(print_error(error)) from None
    if job.pairs and job.resources.nodes > 1:
        raise typer.BadParameter(
            "A job on several nodes runs without `baseline` here: remove it, or post the job to the service.",
            param_hint="SPEC",
        )
    folder = workdir or Path("runs") / (job.name or "job").replace(" ", "-")
    code = (running.run_pairs if job.pairs else running.run_alone)(resolved, folder, json_)
    if not json_:
        typer.echo(f"Work folder: {folder}")
    raise SystemExit(code)


app.command()(join)


@app.command()
def plan(
    recipe: Annotated[
        Path | None, typer.Argument(metavar="SPEC", help="Job spec (YAML or JSON) or the name of a recipe.")
    ] = None,
    data: Annotated[Path, typer.Option(help="Folder of data sets.")] = Path("data"),
    models: Annotated[Path, typer.Option(help="Folder of weights.")] = Path("models"),
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a field, e.g. schedule.batch_size=2."),
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")] = False,
    spec: SpecFile = None,
    events_fd: EventsDescriptor = None,
) -> None:
    """Check a job spec and run a few training steps; print the checks and the estimated cost."""
    if events_fd is not None and spec is not None:
        raise SystemExit(plan_for_worker(spec, _worker_emit(events_fd)))
    if recipe is None:
        raise typer.BadParameter("Name a spec file or a recipe.", param_hint="SPEC")
    try:
        resolved = resolve(read_spec(str(recipe), set_ or []), data, models)
    except FrsError as error:
        raise SystemExit(print_error(error)) from None
    raise SystemExit(print_plan(resolved, json_))


@app.command()
def doctor(
    models: Annotated[Path, typer.Option(help="Folder of weights.")] = Path("models"),
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object per check.")] = False,
) -> None:
    """Check that the engine can run on this machine. The exit status is 1 if a check fails."""
    failed = False
    for check in check_engine(models):
        failed |= check.status == "error"
        if json_:
            typer.echo(check.model_dump_json())
        else:
            output_console.print(host_check.render(check), highlight=False)
    raise SystemExit(failed)


@app.command()
def compare(
    student: Annotated[list[Path], typer.Option(help="Work folder of a distilled run; repeat for each seed.")],
    baseline: Annotated[list[Path], typer.Option(help="Work folder of a baseline; one for each student, same seed.")],
    output: Annotated[Path, typer.Option(help="Folder for report and pictures.")] = Path("runs/comparison"),
    json_: Annotated[bool, typer.Option("--json", help="Print events as JSON lines instead of a bar.")] = False,
) -> None:
    """Compare finished runs: report, confidence intervals and pictures."""
    raise SystemExit(running.compare(student, baseline, output, json_))


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="Work folder of a finished run.", exists=True, file_okay=False)],
    formats: Annotated[
        list[str] | None,
        typer.Option("--format", help="onnx, onnx-int8 or onnx-no-nms; repeat for several. Default: the first two."),
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(help="Largest loss of mAP, in points, that passes. Default: 0.05, and 0.5 for onnx-int8."),
    ] = None,
    fixed: Annotated[bool, typer.Option(help="Give the network one input size instead of the scaled image's.")] = False,
    output: Annotated[Path | None, typer.Option(show_default="RUN/export", help="Work folder.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print events as JSON lines instead of a bar.")] = False,
) -> None:
    """Export a run's student as ONNX files and compare them with it.

    Exit status 1: a file loses too much mAP, or the student finds no objects that it could lose.
    """
    options = {"formats": formats, "max_drop": max_drop, "input_size": "fixed" if fixed else "dynamic"}
    settings: dict[str, object] = {name: value for name, value in options.items() if value is not None}
    raise SystemExit(running.export(run, settings, output, json_))


@app.command()
def check(
    images: Annotated[Path, typer.Argument(help="Folder of images.")],
    annotations: Annotated[Path, typer.Argument(help="COCO annotation file.")],
    json_: Annotated[bool, typer.Option("--json", help="Print the complete report as JSON.")] = False,
) -> None:
    """Check every file and every box of one split of a data set."""
    try:
        with drawing_bar("checking") as progress:
            report = check_split(images, annotations, progress=progress)
    except FrsError as error:
        raise SystemExit(print_error(error)) from None
    if json_:
        typer.echo(report.model_dump_json(indent=2))
    else:
        typer.echo(
            f"{report.counts.images} images, {report.counts.boxes} boxes, classes {', '.join(report.class_names)}"
        )
        for issue in report.issues:
            typer.echo(f"{issue.code}: {issue.message}")
        for note in report.notes:
            typer.echo(note)
        typer.echo(f"{report.invalid_images} images with issues")
    raise SystemExit(1 if report.issue_counts else 0)


@app.command()
def shapes(
    folder: Annotated[Path, typer.Argument(help="Folder of the new data set.")],
    train: Annotated[int, typer.Option(min=1, help="Number of training images.")] = 400,
    val: Annotated[int, typer.Option(min=1, help="Number of validation images.")] = 150,
    size: Annotated[int, typer.Option(min=64, max=1024, help="Width and height in pixels.")] = 160,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the drawing.")] = 0,
) -> None:
    """Draw a data set of shapes in COCO layout."""
    with drawing_bar("drawing") as progress:
        draw_dataset(folder, train=train, val=val, size=size, seed=seed, progress=progress)
    typer.echo(f"{train} training and {val} validation images in {folder}")


@app.command()
def import_weights(
    source: Annotated[Path, typer.Argument(help="A torch or safetensors file; it may be untrusted.")],
    target: Annotated[Path, typer.Argument(help="The safetensors file to write.")],
    sha256: Annotated[str | None, typer.Option(help="Expected SHA-256 of SOURCE.")] = None,
    description: Annotated[
        str | None, typer.Option(help="Description of the detector as JSON; SOURCE must have its tensors.")
    ] = None,
    classes: Annotated[str | None, typer.Option(help="Class names of SOURCE, as a JSON list.")] = None,
    events_fd: EventsDescriptor = None,
) -> None:
    """Convert the tensors and class names of an untrusted file to safetensors; print the result as one JSON object.

    The conversion runs without network and with limits on memory, time and file size.
    """
    die_with_parent()
    if JAIL is None:
        jail.restart_isolated()
    from frs.detectors import import_weights as weights_import

    emit = None if events_fd is None else _worker_emit(events_fd)
    raise SystemExit(weights_import.run(source, target, sha256, emit, description, classes))


def read_spec(name: str, changes: list[str]) -> JobSpec:
    """Return the spec of a file or recipe with `--set` changes applied. Raise InvalidSpec naming the invalid fields."""
    if name in RECIPES:
        content = RECIPES[name].spec_as_dict()
    elif Path(name).is_file():
        content = spec_file.read(Path(name))
    else:
        raise InvalidSpec(f"{name} is neither a file nor a recipe.", f"Recipes: {', '.join(RECIPES)}.")
    try:
        spec = JobSpec.model_validate(spec_file.apply_changes(content, changes))
    except ValidationError as error:
        issues = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'spec'}: {_message(e)}" for e in error.errors())
        raise InvalidSpec(f"{name}: {issues}.") from None
    if spec.kind == "compare":
        raise InvalidSpec(
            "Kind `compare` cannot be run from a spec.",
            "Use `python -m frs compare`, or set `baseline` in a `distill` spec.",
        )
    return spec


def _message(error: ErrorDetails) -> str:
    unknown = error["type"] == "extra_forbidden"
    return (describe_unknown_field(JobSpec, error["loc"]) if unknown else error["msg"]).rstrip(".")


def _worker_emit(events_fd: int) -> events.Emit:
    """Return an `Emit` to the worker's pipe, and make this process end with the worker."""
    die_with_parent()
    emit = events.lines_to(os.fdopen(events_fd, "w", buffering=1))
    if JAIL is not None:
        emit(events.Log(message=str(JAIL)))
    return emit
