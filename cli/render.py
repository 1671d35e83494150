"""Render the service's answers as tables for the terminal."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from rich.console import Group
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from frs.cli import export_tables, plan_tables, report_text
from frs.cli.progress import duration
from frs.evaluation.export_report import ExportReport
from frs.evaluation.report import Report
from frs.preflight.step_runner import Check
from frs_client import Json
from frs_client.answers import parse

_JOB_FIELDS = ("id", "name", "kind", "owner", "tags", "priority", "parent_id")
_STATE_FIELDS = ("status", "phase", "end_reason", "attempt", "queue_position")
SUSPECT_FAILURES = 3
"""Jobs in a row that fail on a worker before the table of workers says so."""
STALE = "stale: the worker does not respond"
COLOURS = {"succeeded": "green", "running": "cyan", "failed": "red", "cancelled": "yellow"}


def jobs(rows: Iterable[Json]) -> Table:
    """Return a table with one row per job."""
    table = _table("id", "status", "done", "kind", "age", "name", folds="name")
    for job in rows:
        progress = f"{100 * job['progress']['fraction']:.0f} %" if (job["progress"] or {}).get("steps") else ""
        status = Text(job["status"], COLOURS.get(job["status"], ""))
        table.add_row(job["id"], status, progress, job["kind"], _age(job["created_at"]), _text(job["name"]))
    return table


def job(job: Json) -> Table:
    """Return a table of one job's fields: state, progress, error, derived jobs."""
    table = Table(show_header=False, box=None)
    for name in _JOB_FIELDS + _STATE_FIELDS:
        if job[name] not in (None, []):
            table.add_row(name, _text(", ".join(job[name]) if isinstance(job[name], list) else job[name]))
    for name in ("status_reason", "error"):
        if job[name]:
            table.add_row(name, _text(f"{job[name]['code']}: {job[name]['message']} {job[name].get('hint') or ''}"))
    if text := _progress(job):
        table.add_row("progress", text)
    for name in ("created_at", "started_at", "finished_at"):
        table.add_row(name, job[name] or "")
    for name, key in [("baselines", "baseline_job_ids"), ("other seeds", "seed_job_ids")]:
        if job[key]:
            table.add_row(name, ", ".join(job[key]))
    if job["comparison_job_id"]:
        table.add_row("comparison", job["comparison_job_id"])
    if dependents := job.get("dependents"):
        names = ", ".join(f"{item['name'] or ''} ({item['id']})".strip() for item in dependents)
        table.add_row("needed by", _text(f"{len(dependents)} jobs, which fail without its student: {names}"))
    if request := job.get("requested_action"):
        table.add_row(
            "requested", _text(f"{request['action']} by {request['by'] or 'unknown'} at {request['at'][:19]}Z")
        )
    for attempt in job.get("attempts", ()):
        table.add_row(f"attempt {attempt['number']}", _text(_attempt(attempt)))
    return table


def plan(answer: Json) -> Group:
    """Return the checks of a plan, then the size of the job and its place in the queue."""
    table = Table(show_header=False, box=None)
    for name in ("training_images", "epochs", "steps", "jobs", "queue_position"):
        if answer[name] is not None:
            table.add_row(name, f"{answer[name]:,}")
    checks = [parse(Check, check) for check in answer["checks"]]
    return Group(plan_tables.checks(checks), Text(), table)


def queue(answer: Json) -> Group:
    """Return a table of queued jobs, the running jobs, the number of jobs per status, and when the queue is empty."""
    table = _table("place", "id", "priority", "GPUs", "waits for", "age", "name", folds="name")
    for row in answer["data"]:
        texts = (row["status_reason"]["code"], _age(row["created_at"]), _text(row["name"]))
        table.add_row(str(row["position"]), row["job_id"], str(row["priority"]), _gpus_requested(row), *texts)
    running = [
        Text("  ".join(filter(None, (f"running {row['job_id']}", row["phase"], row["name"], _progress(row)))))
        for row in answer["running"]
    ]
    counts = Text(", ".join(f"{count} {status}" for status, count in answer["counts"].items()))
    reason = answer.get("empty_at_reason")
    left_out = f", others left out: {reason}" if reason else ""
    empty = f"empty at about {answer['empty_at']}{left_out}" if answer["empty_at"] else f"no estimate: {reason}"
    return Group(table, *running, counts, Text(empty))


def workers(rows: Iterable[Json]) -> Group:
    """Return a table of workers, then those that fail again and again, and the files each one is missing."""
    table = _table("name", "host", "version", "runs", "concurrency", "GPUs", "seen", folds="GPUs")
    notes: list[Text] = []
    for row in rows:
        gpus = "; ".join(map(_gpu, row["gpus"])) or "none"
        seen = f"{_age(row['seen_at'])} ago{', draining' if row['draining'] else ''}"
        slots = (str(row["running"]), str(row["concurrency"]))
        host = f"{row['host']}, first of {row['nodes']} hosts" if row["nodes"] > 1 else row["host"]
        table.add_row(_text(row["name"] or row["id"]), _text(host), _text(row["version"]), *slots, _text(gpus), seen)
        name, failures = row["name"] or row["host"], row["failures_in_a_row"]
        if failures >= SUSPECT_FAILURES:
            notes.append(Text(f"{name} failed on {failures} jobs in a row: check its log, driver and disk."))
        notes += [Text(f"{name} {message}") for message in row["missing"]]
    return Group(table, *notes)


def usage(answer: Json) -> Group:
    """Return a table of disk usage by owner, then the disks."""
    kinds = ("checkpoints", "artifacts", "datasets", "detectors", "total", "limit")
    owners = _table("owner", *kinds)
    for row in answer["owners"]:
        owners.add_row(_text(row["owner"]), *(decimal(row[kind]) for kind in kinds))
    lines = [
        f"disk of {disk['name']}: {decimal(disk['free'])} of {decimal(disk['total'])} free; "
        f"{'uploads are refused' if disk['name'] == 'uploads' else 'jobs wait'} below {decimal(disk['floor'])}"
        for disk in answer["disks"]
    ]
    return Group(owners, *map(Text, lines))


def report(answer: Json) -> Group:
    """Return the paper's table with the confidence interval of the gain, then the verdict."""
    report = parse(Report, answer)
    return Group(report_text.table(report), Text(report_text.conclusion(report)))


def export(answer: Json) -> Group:
    """Return the table of an export's files, then where they are and how to run one."""
    report = parse(ExportReport, answer["report"])
    run = f"Files in {answer['folder']}; run one: python frs_runner.py student.onnx image.jpg --save out.jpg"
    return Group(export_tables.table(report), *map(Text, [*export_tables.notes(report), run]))


def prediction(answer: Json) -> Group:
    """Return a table of the objects that each detector finds on an image."""
    table = _table("detector", "class", "score", "box", folds="class")
    for result in answer["results"]:
        for found in result["objects"]:
            box = " ".join(f"{side:.0f}" for side in found["box"])
            table.add_row(result["role"], _text(found["label"]), f"{found['score']:.3f}", box)
    counts = [
        f"{result['role']}: {len(result['objects'])} objects in {result['milliseconds']:.0f} ms"
        for result in answer["results"]
    ]
    return Group(table, *map(Text, counts))


def metrics(answer: Json) -> Table:
    """Return a table with one row per metric series."""
    table = _table("key", "count", "first", "last", "min", "max")
    for series in answer["series"]:
        first = next((value for value in series["y"] if value is not None), None)
        table.add_row(
            series["key"],
            str(series["count"]),
            *(_number(value) for value in (first, series["last"], series["min"], series["max"])),
        )
    return table


def datasets(rows: Iterable[Json]) -> Table:
    """Return a table with one row per data set: its numbers of images and its classes."""
    table = _table("id", "name", "status", "train", "val", "classes", folds="classes")
    for row in rows:
        counts = [(row["counts"] or {}).get(split) for split in ("train", "val")]
        images = ["" if count is None else f"{count['images']:,}" for count in counts]
        table.add_row(row["id"], _text(row["name"]), row["status"], *images, _text(", ".join(row["classes"] or [])))
    return table


def dataset(row: Json) -> Group:
    """Return the row of one data set, then its issues and warnings."""
    issues = [f"{issue['code']}: {issue['message']}" for issue in row["issues"]]
    return Group(datasets([row]), *map(Text, issues + row.get("warnings", [])))


def recipes(rows: Iterable[Json]) -> Table:
    """Return a table of recipes with the mAP that the paper reports, in percent."""
    table = _table("name", "title", "paper: teacher", "baseline", "distilled", folds="title")
    for row in rows:
        published = row["published"] or {}
        numbers = [published.get(name) for name in ("teacher", "student_alone", "student_distilled")]
        table.add_row(row["name"], row["title"], *("" if number is None else f"{number:.1f}" for number in numbers))
    return table


def keys(rows: Iterable[Json]) -> Table:
    """Return a table with one row per API key; of the token, only its prefix."""
    table = _table("id", "prefix", "owner", "scopes", "created", "expires", "name", folds="name")
    for row in rows:
        expiry = "revoked" if row["revoked_at"] else (row["expires_at"] or "")
        scopes = ", ".join(row["scopes"])
        table.add_row(
            row["id"], _text(row["prefix"]), _text(row["owner"]), scopes, row["created_at"], expiry, _text(row["name"])
        )
    return table


def audit(rows: Iterable[Json]) -> Table:
    """Return a table with one row per change that a user requested."""
    table = _table("at", "owner", "action", "target", "address", "key", "details", folds="details")
    for row in rows:
        texts = [_text(row[name]) for name in ("owner", "action", "target", "address", "key_id")]
        details = ", ".join(f"{name}={value}" for name, value in row["details"].items() if value is not None)
        table.add_row(f"{row['at'][:19]}Z", *texts, _text(details))
    return table


def _table(*headings: str, folds: str = "") -> Table:
    """Return an empty table. On a narrow terminal the column `folds` wraps; the others end in an ellipsis."""
    table = Table(box=None, header_style="bold")
    for heading in headings:
        table.add_column(heading, overflow="fold" if heading == folds else "ellipsis", no_wrap=heading != folds)
    return table


def _gpus_requested(job: Json) -> str:
    """Return "", "8", "2 hosts" or "8 on each of 2 hosts"; a job that names no number takes one GPU if there is one."""
    devices = "" if job["devices"] is None else str(job["devices"])
    if job["nodes"] == 1:
        return devices
    return f"{devices} on each of {job['nodes']} hosts" if devices else f"{job['nodes']} hosts"


def _gpu(gpu: Json) -> str:
    parts = [gpu["name"] or f"GPU {gpu['index']}"]
    if gpu["memory_used"] is not None and gpu["memory_total"]:
        parts.append(f"{gpu['memory_used'] / 2**30:.1f} of {gpu['memory_total'] / 2**30:.0f} GiB")
    if gpu["utilization"] is not None:
        parts.append(f"{gpu['utilization']:.0f} %")
    return ", ".join(parts)


def _age(created_at: str) -> str:
    return duration((datetime.now(UTC) - datetime.fromisoformat(created_at)).total_seconds())


def _attempt(attempt: Json) -> str:
    step = f" from step {attempt['start_step']}" if attempt["start_step"] else ""
    return f"on {attempt['worker']}{step}, {attempt['started_at'][:19]}Z, {attempt['end'] or 'running'}"


def _progress(job: Json) -> str:
    """Return the progress of training and of a phase beside it; empty if there is none."""
    progress = job["progress"] or {}
    parts = []
    if progress.get("steps"):
        parts.append(f"epoch {progress['epoch']}/{progress['epochs']}, step {progress['step']}/{progress['steps']}")
    if progress.get("phase_fraction") is not None:
        parts.append(f"{job['phase'] or 'this phase'} {progress['phase_fraction']:.0%}")
    if progress.get("eta_seconds"):
        parts.append(f"{duration(progress['eta_seconds'])} left")
    if progress.get("stale"):
        parts.append(STALE)
    return ", ".join(parts)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _text(value: Any) -> Text:
    """Return the value as literal text: users' text is not interpreted as markup."""
    return Text("" if value is None else str(value))
