"""Plan a resolved spec, for the terminal or for the worker."""

from pathlib import Path

import typer
from rich.console import Console
from rich.status import Status

from frs import events
from frs.cli.console import error_console
from frs.cli.running import hide_gpus
from frs.resolved import ResolvedSpec


def print_plan(spec: ResolvedSpec, json_: bool) -> int:
    """Print the plan as tables or JSON; return the exit status."""
    hide_gpus(spec)
    from frs.cli import plan_tables
    from frs.engine import plan, trainer

    trainer.silence_libraries()
    with error_console.status("starting") as status:
        estimate = plan.estimate(spec, lambda event: _show_phase(event, status))
    if json_:
        typer.echo(estimate.model_dump_json(indent=2))
    else:
        for table in plan_tables.tables(estimate):
            Console().print(table, "")
    return estimate.exit_code


def plan_for_worker(file: Path, emit: events.Emit) -> int:
    """Plan the spec in the file and emit the result."""
    spec = ResolvedSpec.model_validate_json(file.read_bytes())
    hide_gpus(spec)
    from frs.engine import plan, trainer

    trainer.silence_libraries()
    estimate = plan.estimate(spec, emit)
    emit(events.Facts(values=estimate.model_dump(mode="json")))
    emit(events.Outcome(status="succeeded"))
    return 0


def _show_phase(event: events.Event, status: Status) -> None:
    if isinstance(event, events.Phase):
        status.update(event.phase)
