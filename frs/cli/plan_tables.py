"""Terminal tables of an estimate: the checks, and the cost of the job."""

from rich.table import Table
from rich.text import Text

from frs.cli.progress import duration
from frs.preflight.estimate import Estimate
from frs.preflight.step_runner import Check

_STYLE = {"error": "red", "warning": "yellow", "info": "green"}


def tables(estimate: Estimate) -> list[Table]:
    """Return the tables of an estimate."""
    return [checks(estimate.checks), cost(estimate)]


def checks(results: list[Check]) -> Table:
    """Return the table of checks with their results."""
    table = Table(box=None, pad_edge=False)
    for column in ("", "check", "result"):
        table.add_column(column, overflow="fold")
    for check in results:
        hint = f" {check.hint}" if check.hint else ""
        table.add_row(_mark(check), Text(check.code), Text(check.message + hint))
    return table


def cost(estimate: Estimate) -> Table:
    """Return the table of sizes, times and memory; unknown values are omitted."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in _cost_rows(estimate).items():
        if value:
            table.add_row(name, Text(value))
    return table


def _mark(check: Check) -> Text:
    if check.level == "info" and not check.ok:
        return Text("-", "dim")
    return Text("ok" if check.ok else check.level, _STYLE[check.level])


def _cost_rows(estimate: Estimate) -> dict[str, str | None]:
    seconds = estimate.estimated_seconds
    return {
        "images": _format(
            "{:,} to train on, {:,} to validate on", estimate.training_images, estimate.validation_images
        ),
        "classes": ", ".join(estimate.classes or []),
        "schedule": _format("{:,} steps, {:,} epochs", estimate.steps, estimate.epochs),
        "parameters": _format_detectors(estimate, "parameters", 1e6, "million"),
        "FLOPs": _format_detectors(estimate, "flops", 1e9, "billion multiply-adds"),
        "latency": _format_detectors(estimate, "latency_ms", 1, "ms"),
        "step time": _format("{:.3g} s", estimate.seconds_per_step),
        "total time": f"about {duration(seconds)}" if seconds is not None else None,
        "peak memory": _format("{:,.0f} MiB", estimate.peak_memory_mb),
        "precision": estimate.precision,
        "device": estimate.device,
    }


def _format(template: str, *values: float | None) -> str | None:
    return None if None in values else template.format(*values)


def _format_detectors(estimate: Estimate, field: str, scale: float, unit: str) -> str | None:
    """Return the field's value for teacher and student in `unit`; None if there is neither."""
    costs = {"teacher": estimate.teacher, "student": estimate.student}
    values = [f"{role} {getattr(cost, field) / scale:,.3g}" for role, cost in costs.items() if cost is not None]
    return f"{', '.join(values)} {unit}" if values else None
