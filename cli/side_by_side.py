"""A comparison of jobs for people: one column a job."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from cli.client import Json

_SHOWN = ("name", "status", "kind", "method", "parameters", "flops", "latency_ms")
_NUMBERS = ("bbox_mAP", "bbox_mAP_50", "bbox_mAP_75", "bbox_mAP_s", "bbox_mAP_m", "bbox_mAP_l")


def draw(answer: Json) -> Group:
    """The best numbers are marked with a star."""
    jobs = [job["id"] for job in answer["jobs"]]
    facts = ((name, [_said(job[name]) for job in answer["jobs"]]) for name in _SHOWN)
    differences = ((row["path"], [_said(value) for value in row["values"]]) for row in answer["differences"])
    ends = ((curve["key"], [_said(_last(y)) for y in curve["y"]]) for curve in answer["curves"])
    parts = {"": facts, "spec": differences, "last value": ends, "evaluation": _numbers(jobs, answer["evaluations"])}
    return Group(*(_table(title, jobs, rows) for title, rows in parts.items()))


def _numbers(jobs: Sequence[str], evaluations: Sequence[Json]) -> list[tuple[str, list[str]]]:
    by_job = {row["job_id"]: row for row in evaluations}
    return [
        (name, [_score(by_job.get(job), "metrics", "best", name) for job in jobs]) for name in _NUMBERS if by_job
    ] + [
        (name, [_score(by_job.get(job), "per_class", "best_classes", name) for job in jobs])
        for name in dict.fromkeys(name for row in evaluations for name in row["per_class"])
    ]


def _score(row: Json | None, part: str, marks: str, name: str) -> str:
    value = row[part].get(name) if row else None
    if row is None or value is None:
        return "-"
    return f"{100 * value:.1f}{' *' if name in row[marks] else ''}"


def _table(title: str, jobs: Sequence[str], rows: Iterable[tuple[str, list[str]]]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column(title, overflow="fold")
    for job in jobs:
        table.add_column(job, overflow="fold")
    for name, values in rows:
        table.add_row(Text(name), *(Text(value) for value in values))
    return table


def _last(values: Sequence[float | None]) -> float | None:
    return next((value for value in reversed(values) if value is not None), None)


def _said(value: Any) -> str:
    match value:
        case None:
            return "-"
        case str():
            return value
        case float():
            return f"{value:.4g}"
        case _:
            return json.dumps(value)
