"""The report as text for the terminal."""

from typing import get_args

from rich.filesize import decimal
from rich.table import Table

from frs.cpu_load import caveat
from frs.distillation_spec import TermName
from frs.evaluation.export_report import FileReport
from frs.evaluation.report import Report, Role
from frs.evaluation.verdict import Comparison, Interval
from frs.spec import MAX_DETECTIONS

NUMBERS = {
    "mAP": "bbox_mAP",
    "mAP50": "bbox_mAP_50",
    "mAP75": "bbox_mAP_75",
    "small": "bbox_mAP_s",
    "medium": "bbox_mAP_m",
    "large": "bbox_mAP_l",
}
LABELS = {"teacher": "teacher", "baseline": "student alone", "student": "student", "gain": "gain"}
_COSTS = {"parameters": (1e6, "M parameters"), "flops": (1e9, "GFLOPs"), "latency_ms": (1, "ms an image")}


def table(report: Report) -> Table:
    """Return the table of the paper: teacher, student alone, distilled student, gain; COCO metrics in percent."""
    result = Table(box=None, header_style="bold")
    for heading in ("", *NUMBERS):
        result.add_column(heading, no_wrap=True)
    for row in report.rows:
        number_format = "+.1f" if row.role == "gain" else ".1f"
        cells = [_percent(row.metrics.get(name), number_format) for name in NUMBERS.values()]
        result.add_row(_label(row.role, report), *cells, style="bold" if row.role in ("student", "gain") else "")
        for file in report.files if row.role == "student" else ():
            result.add_row(f"  {file.name}", *(_percent(file.metrics.get(name), ".1f") for name in NUMBERS.values()))
    if report.comparison:
        intervals = report.comparison.image_interval.by_number
        result.add_row("  from", *(_bound(intervals.get(name), "low") for name in NUMBERS.values()), style="dim")
        result.add_row("  to", *(_bound(intervals.get(name), "high") for name in NUMBERS.values()), style="dim")
    return result


def conclusion(report: Report) -> str:
    """Return the verdict with its intervals, caveat and costs, or the runs that a partial report lacks."""
    if report.status == "partial":
        return "\n".join(["Partial: not every run has ended.", *_missing(report)])
    classes = report.facts.teacher_classes
    notes = [*_sizes(report), *_limit(report), *([classes.describe()] if classes and classes.used else [])]
    notes += [report.facts.teacher_init.describe()] if report.facts.teacher_init else []
    costs = [*notes, *_costs(report), *_files(report), *_weights(report), *_warnings(report)]
    if report.comparison is None:
        return "\n".join([f"Verdict: {report.verdict}", *costs])
    closed = report.gap_closed
    gap = f"; {100 * closed:.0f} % of the gap to the teacher closed" if closed is not None else ""
    findings = [*_intervals(report.comparison), report.caveat or "", *_advice(report)]
    return "\n".join([f"Verdict: {report.verdict}{gap}", *findings, *costs])


def _label(role: Role, report: Report) -> str:
    facts = report.facts
    method = facts.method
    if role != "student" or method in (None, "none"):
        return LABELS[role]
    settings = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in (facts.method_settings or {}).items())
    return f"student with {'FRS' if method == 'frs' else method}{f' ({settings})' if settings else ''}"


def _missing(report: Report) -> list[str]:
    waiting = report.waiting_for
    return [f"{run.what} {run.job_id or ''}: {run.status}{f', {run.reason}' if run.reason else ''}" for run in waiting]


def _intervals(comparison: Comparison) -> list[str]:
    images, seeds = comparison.image_interval, comparison.seed_interval
    lines = [
        f"Gain in mAP {100 * comparison.gain:+.1f}, {_range(images)} with {100 * images.level:.0f} % confidence "
        f"over {images.images} validation images ({images.resamples:,} resamples, from/to above)"
    ]
    if seeds:
        lines.append(f"and {_range(seeds)} over {seeds.n} seeds (Student's t):")
        lines += [
            f"  seed {pair.seed}: {100 * pair.baseline:.1f} alone, {100 * pair.student:.1f} distilled, "
            f"{100 * pair.gain:+.1f}"
            for pair in comparison.pairs
        ]
    return lines


def _advice(report: Report) -> list[str]:
    return [f"{advice.topic.replace('_', ' ').capitalize()}? {advice.text}" for advice in report.advice]


def _limit(report: Report) -> list[str]:
    """Return the limit on the detections unless it is COCO's."""
    limit = report.facts.max_detections
    return [] if limit in (None, MAX_DETECTIONS) else [f"{limit} detections on an image count."]


def _costs(report: Report) -> list[str]:
    """Return the measured parameters, FLOPs and latency, one line each."""
    lines = []
    for fact, (scale, unit) in _COSTS.items():
        values = {role: getattr(report.facts, f"{role}_{fact}") for role in ("teacher", "student")}
        texts = [f"{role} {value / scale:.3g}" for role, value in values.items() if isinstance(value, int | float)]
        note = caveat(report.facts.latency_load) if fact == "latency_ms" else ""
        lines += [f"{unit}: {', '.join(texts)}{note}"] if texts else []
    return lines


def _files(report: Report) -> list[str]:
    """Return size, latency and loss of each exported file."""
    return [
        f"{file.name}: {decimal(file.bytes)}, {file.latency_ms:.1f} ms an image on one CPU thread"
        f"{caveat(file.load)}, {_loss(file)}"
        for file in report.files
    ]


def _loss(file: FileReport) -> str:
    if file.nothing_to_compare:
        return "nothing to compare"
    return f"loses {100 * file.drop:.2f} points of mAP{'' if file.passed else f', more than {100 * file.max_drop:g}'}"


def _sizes(report: Report) -> list[str]:
    """Return the image sizes of the evaluations as one line."""
    sizes = {"teacher": report.facts.teacher_image_size, "student": report.facts.student_image_size}
    texts = [f"{role} {size[0]} x {size[1]}" for role, size in sizes.items() if size]
    return [f"evaluated at: {', '.join(texts)}"] if texts else []


def _weights(report: Report) -> list[str]:
    """Return each term's weight, with its calibration target and the paper's weight if there are any."""
    facts = report.facts
    if facts.weights is None:
        return []
    paper, shares = facts.weights_paper or {}, facts.weights_shares or {}
    is_adaptive = (facts.method_settings or {}).get("weight_schedule") == "adaptive"
    calibrated = "at the end, adjusted each epoch towards" if is_adaptive else "calibrated to"
    return [
        f"{term} weight: {weight:.3g}"
        + (f", {calibrated} {shares[term]:g} times the task's gradient" if term in shares else "")
        + (f" (the paper's: {paper[term]:g})" if term in paper else "")
        for term in get_args(TermName)
        if (weight := facts.weights.of(term))
    ]


def _warnings(report: Report) -> list[str]:
    return [f"Warning: {text}" for text in report.facts.warnings or ()]


def _range(interval: Interval) -> str:
    return f"{100 * interval.low:+.1f} to {100 * interval.high:+.1f}"


def _bound(interval: Interval | None, end: str) -> str:
    return _percent(getattr(interval, end) if interval else None, "+.1f")


def _percent(value: float | None, number_format: str) -> str:
    return "-" if value is None else format(100 * value, number_format)
