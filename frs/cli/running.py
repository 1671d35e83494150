"""Run resolved specs as the commands request: with a bar or JSON lines, alone or with their baselines."""

import os
import sys
from pathlib import Path

import typer

from frs import events
from frs.cli import export_tables, report_text
from frs.cli.console import output_console, print_error
from frs.cli.progress import Bar
from frs.comparison import paired_runs, run_folder
from frs.errors import FrsError
from frs.evaluation.export_report import ExportReport
from frs.evaluation.report import Report
from frs.resolved import ResolvedSpec


def run_pairs(spec: ResolvedSpec, folder: Path, json_: bool) -> int:
    """Run the runs that have not succeeded yet one after the other, then compare all."""
    planned = list(paired_runs.planned_runs(spec))
    for one in planned:
        try:
            done = paired_runs.is_done(folder / one.name, one.spec)
        except FrsError as error:
            return print_error(error)
        if not done and (code := run_in(folder / one.name, one.spec, json_)):
            return code
    folders = {role: [folder / one.name for one in planned if one.role == role] for role in ("student", "baseline")}
    return compare(folders["student"], folders["baseline"], folder, json_)


def compare(students: list[Path], baselines: list[Path], output: Path, json_: bool) -> int:
    """Compare finished runs by their work folders; print the verdict unless the events are printed."""
    try:
        spec = paired_runs.comparison_spec(students, baselines)
    except FrsError as error:
        return print_error(error)
    code = run_in(output, spec, json_)
    if not code and not json_:
        report = Report.model_validate_json((output / "report.json").read_bytes())
        output_console.print(report_text.table(report))
        output_console.print(report_text.conclusion(report), highlight=False, markup=False)
    return code


def export(run: Path, settings: dict[str, object], output: Path | None, json_: bool) -> int:
    """Export the student of a run; return 1 if a file loses too much mAP."""
    try:
        spec = run_folder.export_spec(run, settings)
    except FrsError as error:
        return print_error(error)
    folder = output or run / "export"
    if code := run_in(folder, spec, json_):
        return code
    report = ExportReport.model_validate_json((folder / "export" / "export.json").read_bytes())
    if not json_:
        output_console.print(export_tables.table(report))
        output_console.print(*export_tables.notes(report), sep="\n", highlight=False, markup=False)
        typer.echo(f"Files: {folder / 'export'}")
    return 0 if report.passed else 1


def run_alone(spec: ResolvedSpec, folder: Path, json_: bool) -> int:
    """Run `spec` in the folder, unless a training of another spec has succeeded there, whose files are kept."""
    if (folder / run_folder.CHECKPOINTS).is_dir():
        try:
            paired_runs.is_done(folder, spec)
        except FrsError as error:
            return print_error(error)
    return run_in(folder, spec, json_)


def run_in(folder: Path, spec: ResolvedSpec, json_: bool) -> int:
    """Run `spec` with a bar or JSON lines, and log its events in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with run_folder.open_event_log(folder) as event_log:
        if json_:
            code = run(spec, folder, events.to_all(events.lines_to(event_log), events.lines_to(sys.stdout)))
        else:
            with Bar() as bar:
                code = run(spec, folder, events.to_all(events.lines_to(event_log), bar))
    if code == 0:  # until then the folder may belong to another spec, whose checkpoints the engine rejects
        (folder / run_folder.SPEC).write_text(spec.model_dump_json())
    return code


def run(spec: ResolvedSpec, workdir: Path, emit: events.Emit) -> int:
    """Run `spec`, in as many processes as it requests; return the exit status."""
    hide_gpus(spec)
    if spec.job.resources.trainers > 1 and spec.comparison_inputs is None:
        from frs.engine import launcher

        return launcher.run(spec, workdir, emit)
    from frs.engine import trainer

    return trainer.run(spec, workdir, emit)


def hide_gpus(spec: ResolvedSpec) -> None:
    """Make this process and its children see no GPU if the job requests none; call it before torch is imported."""
    if spec.job.resources.devices == 0:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # mmengine uses any visible GPU, and checks at import
