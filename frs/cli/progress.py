"""A terminal progress bar, drawn from the events that the service reads as JSON lines."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Column

from frs import events


class Bar:
    """A progress bar that is called with events.

    It shows epoch, loss terms, images/s, time left and memory, and prints evaluations, log messages and the outcome.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console()
        self.bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", table_column=Column(no_wrap=True, min_width=10)),
            BarColumn(bar_width=16),
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            TimeElapsedColumn(table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[details]}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)),
            console=self.console,
            expand=True,
        )
        self.task = self.bar.add_task("starting", total=None, details="")
        self.details: dict[str, str] = {}

    def __enter__(self) -> "Bar":
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def __call__(self, event: events.Event) -> None:
        """Update the bar with an event, or print it."""
        match event:
            case events.Phase():
                self.bar.update(self.task, description=event.phase)
            case events.Progress():
                self._show_progress(event)
            case events.Metrics():
                self._show_metrics(event)
            case events.Evaluation():
                self._print(evaluation_line(event))
            case events.Log():
                self._print(event.message, "yellow" if event.level in ("warning", "error") else "dim")
            case events.Outcome():
                self._show_outcome(event)

    def _show_progress(self, event: events.Progress) -> None:
        self.details["epoch"] = f"epoch {event.epoch}/{event.epochs}" if event.epochs else ""
        self.details["phase"] = f"{100 * event.phase_fraction:.0f} %" if event.phase_fraction is not None else ""
        self.details["rate"] = f"{event.images_per_second:.1f} images/s" if event.images_per_second else ""
        self.details["eta"] = f"{duration(event.eta_seconds)} left" if event.eta_seconds is not None else ""
        self.bar.update(self.task, completed=event.step, total=event.steps or None, details=self._details_line())

    def _show_metrics(self, event: events.Metrics) -> None:
        values = {key: value for key, value in event.values.items() if value is not None and key.startswith("train/")}
        terms = [
            f"{key.removeprefix('train/')} {value:.3g}"
            for key, value in values.items()
            if "loss" in key or "distill" in key
        ]
        if terms:
            self.details["terms"] = ", ".join(terms)
            self.details["memory"] = f"{values.get('train/memory_mb', 0):.0f} MiB"
            self.bar.update(self.task, details=self._details_line())

    def _details_line(self) -> str:
        keys = ("phase", "epoch", "eta", "rate", "terms", "memory")
        return " · ".join(filter(None, (self.details.get(key) for key in keys)))

    def _show_outcome(self, event: events.Outcome) -> None:
        self.bar.update(self.task, description=event.status, details="")
        if event.error:
            self._print(f"{event.error.code}: {event.error.message}", "red")
            self._print(event.error.hint, "")

    def _print(self, text: str, style: str = "") -> None:
        if text:
            self.console.print(text, style=style, highlight=False, markup=False)


def evaluation_line(event: events.Evaluation) -> str:
    """Return an evaluation's metrics as one line of text."""
    metrics = ", ".join(
        f"{name.removeprefix('bbox_')} {'-' if value is None else f'{value:.3f}'}"
        for name, value in event.metrics.items()
    )
    return f"{event.role}, epoch {event.epoch}: {metrics}"


def duration(seconds: float) -> str:
    """Return a duration as `minutes:seconds`, from an hour on as `hours:minutes:seconds`."""
    minutes, seconds_left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds_left:02d}" if hours else f"{minutes}:{seconds_left:02d}"


@contextmanager
def drawing_bar(description: str) -> Iterator[Callable[[int, int], None]]:
    """Draw a progress bar and yield its callback `progress(done, total)`."""
    with Progress(
        TextColumn(description), BarColumn(), MofNCompleteColumn(), console=Console(stderr=True), transient=True
    ) as bar:
        task = bar.add_task(description, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
