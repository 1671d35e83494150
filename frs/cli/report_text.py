"""The report as people read it at the terminal."""

from rich.table import Table

from frs.evaluation.report import Comparison, Interval, Report, Role

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
    """The paper's table: teacher, student alone, student with FRS, gain; COCO numbers in percent."""
    drawn = Table(box=None, header_style="bold")
    for heading in ("", *NUMBERS):
        drawn.add_column(heading, no_wrap=True)
    for row in report.rows:
        signed = "+.1f" if row.role == "gain" else ".1f"
        cells = [_percent(row.metrics.get(name), signed) for name in NUMBERS.values()]
        drawn.add_row(_label(row.role, report), *cells, style="bold" if row.role in ("student", "gain") else "")
    if report.comparison:
        intervals = report.comparison.image_interval.by_number
        drawn.add_row("  from", *(_bound(intervals.get(name), "low") for name in NUMBERS.values()), style="dim")
        drawn.add_row("  to", *(_bound(intervals.get(name), "high") for name in NUMBERS.values()), style="dim")
    return drawn


def conclusion(report: Report) -> str:
    """The verdict with what it rests on, or why there is none yet."""
    if report.status == "partial":
        return "\n".join(["Partial: not every run has ended.", *_missing(report)])
    costs = [*_costs(report), *_weights(report), *_warnings(report)]
    if report.comparison is None:
        return "\n".join([f"Verdict: {report.verdict}", *costs])
    closed = report.gap_closed
    gap = f"; {100 * closed:.0f} % of the gap to the teacher closed" if closed is not None else ""
    return "\n".join([f"Verdict: {report.verdict}{gap}", *_intervals(report.comparison), report.caveat or "", *costs])


def _label(role: Role, report: Report) -> str:
    method = report.facts.get("method")
    if role != "student" or method in (None, "none"):
        return LABELS[role]
    return f"student with {'FRS' if method == 'frs' else method}"


def _missing(report: Report) -> list[str]:
    waiting = report.waiting_for
    return [f"{run.what} {run.job_id or ''}: {run.status}{f', {run.reason}' if run.reason else ''}" for run in waiting]


def _intervals(comparison: Comparison) -> list[str]:
    images, seeds = comparison.image_interval, comparison.seed_interval
    lines = [
        f"Gain in mAP {100 * comparison.gain:+.1f}, {_between(images)} with {100 * images.level:.0f} % confidence "
        f"over {images.images} validation images ({images.resamples:,} resamples, from/to above)"
    ]
    if seeds:
        lines.append(f"and {_between(seeds)} over {seeds.n} seeds (Student's t):")
        lines += [
            f"  seed {pair.seed}: {100 * pair.baseline:.1f} alone, {100 * pair.student:.1f} distilled, "
            f"{100 * pair.gain:+.1f}"
            for pair in comparison.pairs
        ]
    return lines


def _costs(report: Report) -> list[str]:
    """Parameters, FLOPs and latency, as far as they were measured."""
    lines = []
    for what, (unit, name) in _COSTS.items():
        sides = {role: report.facts.get(f"{role}_{what}") for role in ("teacher", "student")}
        told = [f"{role} {value / unit:.3g}" for role, value in sides.items() if isinstance(value, int | float)]
        lines += [f"{name}: {', '.join(told)}"] if told else []
    return lines


def _weights(report: Report) -> list[str]:
    """Each term's weight, and what it was found by where it was not given."""
    facts = report.facts
    used, paper, shares = (facts.get(name) or {} for name in ("weights", "weights_paper", "weights_shares"))
    return [
        f"{term} weight: {used[term]:.3g}"
        + (f", for {shares[term]:g} times the task's gradient when it was found" if term in shares else "")
        + (f" (the paper's: {paper[term]:g})" if term in paper else "")
        for term in ("feature", "logit")
        if used.get(term)
    ]


def _warnings(report: Report) -> list[str]:
    return [f"Warning: {text}" for text in report.facts.get("warnings") or []]


def _between(interval: Interval) -> str:
    return f"{100 * interval.low:+.1f} to {100 * interval.high:+.1f}"


def _bound(interval: Interval | None, end: str) -> str:
    return _percent(getattr(interval, end) if interval else None, "+.1f")


def _percent(value: float | None, form: str) -> str:
    return "-" if value is None else format(100 * value, form)
