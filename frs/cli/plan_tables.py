"""A plan for people: what was checked, and what the job would cost."""

from rich.table import Table
from rich.text import Text

from frs.cli.progress import duration
from frs.preflight.checks import Check
from frs.preflight.estimate import Estimate

_STYLE = {"error": "red", "warning": "yellow", "info": "green"}


def tables(forecast: Estimate) -> list[Table]:
    return [checks(forecast.checks), cost(forecast)]


def checks(found: list[Check]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("", "check", "found"):
        table.add_column(column, overflow="fold")
    for check in found:
        hint = f" {check.hint}" if check.hint else ""
        table.add_row(_mark(check), Text(check.code), Text(check.message + hint))
    return table


def cost(forecast: Estimate) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in _rows(forecast).items():
        if value:
            table.add_row(name, Text(value))
    return table


def _mark(check: Check) -> Text:
    if check.level == "info" and not check.ok:
        return Text("-", "dim")
    return Text("ok" if check.ok else check.level, _STYLE[check.level])


def _rows(forecast: Estimate) -> dict[str, str | None]:
    return {
        "images": _said("{:,} to train on, {:,} to validate on", forecast.training_images, forecast.validation_images),
        "classes": ", ".join(forecast.classes or []),
        "schedule": _said("{:,} steps, {:,} epochs", forecast.steps, forecast.epochs),
        "parameters": _sides(forecast, "parameters", 1e6, "million"),
        "FLOPs": _sides(forecast, "flops", 1e9, "billion multiply-adds"),
        "latency": _sides(forecast, "latency_ms", 1, "ms"),
        "a step": _said("{:.3g} s", forecast.seconds_per_step),
        "in all": f"about {duration(forecast.estimated_seconds)}" if forecast.estimated_seconds is not None else None,
        "peak memory": _said("{:,.0f} MiB", forecast.peak_memory_mb),
        "precision": forecast.precision,
        "device": forecast.device,
    }


def _said(text: str, *values: float | None) -> str | None:
    return None if None in values else text.format(*values)


def _sides(forecast: Estimate, name: str, unit: float, called: str) -> str | None:
    """Teacher and student side by side."""
    sides = {"teacher": forecast.teacher, "student": forecast.student}
    told = [f"{role} {getattr(side, name) / unit:,.3g}" for role, side in sides.items() if side is not None]
    return f"{', '.join(told)} {called}" if told else None
