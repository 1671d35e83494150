"""Render a comparison of jobs as tables with one column per job."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from frs_client import Json

_FACTS = ("name", "status", "kind", "method", "parameters", "flops", "latency_ms")
_METRICS = ("bbox_mAP", "bbox_mAP_50", "bbox_mAP_75", "bbox_mAP_s", "bbox_mAP_m", "bbox_mAP_l")


def draw(answer: Json) -> Group:
    """Return tables of facts, spec differences, last metric values and evaluations. A star marks the best values."""
    jobs = [job["id"] for job in answer["jobs"]]
    facts = ((name, [_cell(job[name]) for job in answer["jobs"]]) for name in _FACTS)
    differences = ((row["path"], [_cell(value) for value in row["values"]]) for row in answer["differences"])
    last_values = ((curve["key"], [_cell(_last(y)) for y in curve["y"]]) for curve in answer["curves"])
    sections = {
        "": facts,
        "spec": differences,
        "last value": last_values,
        "evaluation": _evaluation_rows(jobs, answer["evaluations"]),
    }
    tables = (_table(title, jobs, rows) for title, rows in sections.items())
    note = "The jobs were evaluated on different data sets: their scores cannot be compared, and none is marked."
    return Group(*tables, *([] if answer["comparable"] else [Text(note)]))


def _evaluation_rows(jobs: Sequence[str], evaluations: Sequence[Json]) -> list[tuple[str, list[str]]]:
    by_job = {row["job_id"]: row for row in evaluations}
    return [
        (name, [_score(by_job.get(job), "metrics", "best", name) for job in jobs]) for name in _METRICS if by_job
    ] + [
        (name, [_score(by_job.get(job), "per_class", "best_classes", name) for job in jobs])
        for name in dict.fromkeys(name for row in evaluations for name in row["per_class"])
    ]


def _score(row: Json | None, section: str, best: str, name: str) -> str:
    value = row[section].get(name) if row else None
    if row is None or value is None:
        return "-"
    return f"{100 * value:.1f}{' *' if name in row[best] else ''}"


def _table(title: str, jobs: Sequence[str], rows: Iterable[tuple[str, list[str]]]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column(title, overflow="fold")
    for job_id in jobs:
        table.add_column(job_id, overflow="fold")
    for name, values in rows:
        table.add_row(Text(name), *(Text(value) for value in values))
    return table


def _last(values: Sequence[float | None]) -> float | None:
    return next((value for value in reversed(values) if value is not None), None)


def _cell(value: Any) -> str:
    match value:
        case None:
            return "-"
        case str():
            return value
        case float():
            return f"{value:.4g}"
        case _:
            return json.dumps(value)
