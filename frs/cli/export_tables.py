"""The report of an export as a table for the terminal."""

from rich.filesize import decimal
from rich.table import Table

from frs.cpu_load import caveat
from frs.evaluation.export_report import ExportReport, FileReport

SHOWN_LAYERS = 3


def table(report: ExportReport) -> Table:
    """Return a table of the student in torch and of each exported file: size, mAP, loss of mAP, latency."""
    result = Table(box=None, header_style="bold")
    for heading in ("file", "size", "mAP", "loss", "95 % interval", "lost boxes", "ms", "passed"):
        result.add_column(heading, no_wrap=True)
    result.add_row(
        "student (torch)",
        "",
        _points(report.metrics["bbox_mAP"]),
        "",
        "",
        "",
        _latency(report),
    )
    for file in report.files:
        interval = file.drop_interval
        result.add_row(
            file.name,
            decimal(file.bytes),
            _points(file.metrics["bbox_mAP"]),
            f"{100 * file.drop:+.2f}",
            f"{100 * interval.low:+.2f} to {100 * interval.high:+.2f}" if interval else "",
            f"{file.missing} of {file.compared}",
            _latency(file),
            "yes" if file.passed else "[yellow]nothing to compare[/]" if file.nothing_to_compare else "[red]no[/]",
        )
    return result


def notes(report: ExportReport) -> list[str]:
    """Return what the columns mean, and the next step for a file that did not pass."""
    lines = [
        f"loss: points of mAP on {report.images} validation images; lost boxes: of the student's with a score of 0.3; "
        "ms: an image on one CPU thread, from pixels to boxes."
    ]
    if any(caveat(load) for load in (report.load, *(file.load for file in report.files))):
        lines.append("*: measured on a busy machine: other work made the time longer. Export again while it is idle.")
    lines += dict.fromkeys(file.nothing_to_compare for file in report.files if file.nothing_to_compare)
    for file in report.files:
        if not file.passed and not file.nothing_to_compare:
            lines.append(f"{file.name} loses more than {100 * file.max_drop:g} points: see docs/export.md.")
        if file.worst_layers:
            worst = ", ".join(layer.tensor for layer in file.worst_layers[:SHOWN_LAYERS])
            lines.append(f"It differs most in {worst}.")
    return lines


def _latency(measured: ExportReport | FileReport) -> str:
    return f"{measured.latency_ms:.1f}{'*' if caveat(measured.load) else ''}"


def _points(mAP: float | None) -> str:
    return "" if mAP is None else f"{100 * mAP:.1f}"
