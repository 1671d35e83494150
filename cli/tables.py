"""What people read at the terminal."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from cli.client import Json
from frs.progress import duration

COLOURS = {"succeeded": "green", "running": "cyan", "failed": "red", "cancelled": "yellow"}
NUMBERS = {
    "mAP": "bbox_mAP",
    "mAP50": "bbox_mAP_50",
    "mAP75": "bbox_mAP_75",
    "small": "bbox_mAP_s",
    "medium": "bbox_mAP_m",
    "large": "bbox_mAP_l",
}
LABELS = {"teacher": "teacher", "baseline": "student alone", "student": "student with FRS", "gain": "gain"}


def jobs(rows: Iterable[Json]) -> Table:
    table = _table("id", "status", "done", "kind", "age", "name", folds="name")
    for job in rows:
        progress = f"{100 * job['progress']['fraction']:.0f} %" if job["progress"] else ""
        status = Text(job["status"], COLOURS.get(job["status"], ""))
        table.add_row(job["id"], status, progress, job["kind"], _age(job["created_at"]), _text(job["name"]))
    return table


def job(job: Json) -> Table:
    table = Table(show_header=False, box=None)
    for name in ("id", "name", "kind", "status", "phase", "end_reason", "attempt", "queue_position", "parent_id"):
        if job[name] is not None:
            table.add_row(name, _text(job[name]))
    for name in ("status_reason", "error"):
        if job[name]:
            table.add_row(name, _text(f"{job[name]['code']}: {job[name]['message']} {job[name].get('hint') or ''}"))
    if job["progress"]:
        table.add_row("progress", _progress(job["progress"]))
    for name in ("created_at", "started_at", "finished_at"):
        table.add_row(name, job[name] or "")
    if job["baseline_job_ids"]:
        table.add_row("baselines", ", ".join(job["baseline_job_ids"]))
    return table


def report(report: Json) -> Table:
    """The paper's table: teacher, student alone, student with FRS, gain; COCO numbers in percent."""
    table = _table("", *NUMBERS)
    for row in report["rows"]:
        signed = "+.1f" if row["role"] == "gain" else ".1f"
        style = "bold" if row["role"] in ("student", "gain") else ""
        cells = [_percent(row["metrics"].get(name), signed) for name in NUMBERS.values()]
        table.add_row(LABELS[row["role"]], *cells, style=style)
    return table


def verdict(report: Json) -> str:
    if report["status"] == "partial":
        return "Partial: not every run has ended."
    closed = report["gap_closed"]
    gap = f"; {100 * closed:.0f} % of the gap to the teacher closed" if closed is not None else ""
    return f"Verdict: {report['verdict']}, by one pair of runs{gap}"


def metrics(answer: Json) -> Table:
    table = _table("key", "count", "first", "last", "min", "max")
    for line in answer["series"]:
        first = next((value for value in line["y"] if value is not None), None)
        table.add_row(
            line["key"],
            str(line["count"]),
            *(_number(value) for value in (first, line["last"], line["min"], line["max"])),
        )
    return table


def datasets(rows: Iterable[Json]) -> Table:
    table = _table("id", "name", "status", "classes", folds="classes")
    for row in rows:
        table.add_row(row["id"], _text(row["name"]), row["status"], _text(", ".join(row["classes"] or [])))
    return table


def dataset(row: Json) -> Group:
    """One data set with what is wrong with it."""
    return Group(datasets([row]), *(Text(f"{problem['code']}: {problem['message']}") for problem in row["problems"]))


def recipes(rows: Iterable[Json]) -> Table:
    table = _table("name", "what", "paper: teacher", "alone", "distilled", folds="what")
    for row in rows:
        published = row["published"] or {}
        numbers = [published.get(name) for name in ("teacher", "student_alone", "student_distilled")]
        table.add_row(row["name"], row["title"], *("" if number is None else f"{number:.1f}" for number in numbers))
    return table


def _table(*headings: str, folds: str = "") -> Table:
    """`folds`: the column that gives way on a narrow terminal."""
    table = Table(box=None, header_style="bold")
    for heading in headings:
        table.add_column(heading, overflow="fold", no_wrap=heading != folds)
    return table


def _age(created_at: str) -> str:
    return duration((datetime.now(UTC) - datetime.fromisoformat(created_at)).total_seconds())


def _progress(progress: Json) -> str:
    eta = progress["eta_seconds"]
    left = f", {duration(eta)} left" if eta else ""
    return f"epoch {progress['epoch']}/{progress['epochs']}, step {progress['step']}/{progress['steps']}{left}"


def _percent(value: float | None, form: str) -> str:
    return "-" if value is None else format(100 * value, form)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _text(value: Any) -> Text:
    """As it is: what users typed is no markup."""
    return Text("" if value is None else str(value))
