"""A bar for people: the same events that a service reads as JSON lines."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Column

from frs import events


class Bar:
    """Draws epoch, loss terms, images/s, time left and memory; prints evaluations, warnings and the outcome."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console()
        self.bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", table_column=Column(no_wrap=True, min_width=10)),
            BarColumn(bar_width=16),
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            TimeElapsedColumn(table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[told]}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)),
            console=self.console,
            expand=True,
        )
        self.task = self.bar.add_task("starting", total=None, told="")
        self.told: dict[str, str] = {}

    def __enter__(self) -> "Bar":
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def __call__(self, event: events.Event) -> None:
        match event:
            case events.Phase():
                self.bar.update(self.task, description=event.phase)
            case events.Progress():
                self._progress(event)
            case events.Metrics():
                self._metrics(event)
            case events.Evaluation():
                self._say(evaluation_line(event))
            case events.Log():
                self._say(event.message, "yellow" if event.level in ("warning", "error") else "dim")
            case events.Outcome():
                self._outcome(event)

    def _progress(self, event: events.Progress) -> None:
        self.told["epoch"] = f"epoch {event.epoch}/{event.epochs}" if event.epochs else ""
        self.told["phase"] = f"{100 * event.phase_fraction:.0f} %" if event.phase_fraction is not None else ""
        self.told["rate"] = f"{event.images_per_second:.1f} images/s" if event.images_per_second else ""
        self.told["eta"] = f"{duration(event.eta_seconds)} left" if event.eta_seconds is not None else ""
        self.bar.update(self.task, completed=event.step, total=event.steps or None, told=self._line())

    def _metrics(self, event: events.Metrics) -> None:
        shown = {key: value for key, value in event.values.items() if value is not None and key.startswith("train/")}
        terms = [
            f"{key.removeprefix('train/')} {value:.3g}"
            for key, value in shown.items()
            if "loss" in key or "distill" in key
        ]
        if terms:
            self.told["terms"] = ", ".join(terms)
            self.told["memory"] = f"{shown.get('train/memory_mb', 0):.0f} MB"
            self.bar.update(self.task, told=self._line())

    def _line(self) -> str:
        return " · ".join(
            filter(None, (self.told.get(key) for key in ("phase", "epoch", "eta", "rate", "terms", "memory")))
        )

    def _outcome(self, event: events.Outcome) -> None:
        self.bar.update(self.task, description=event.status, told="")
        if event.error:
            self._say(f"{event.error.code}: {event.error.message}", "red")
            self._say(event.error.hint, "")

    def _say(self, text: str, style: str = "") -> None:
        if text:
            self.console.print(text, style=style, highlight=False, markup=False)


def evaluation_line(event: events.Evaluation) -> str:
    numbers = ", ".join(
        f"{name.removeprefix('bbox_')} {'-' if value is None else f'{value:.3f}'}"
        for name, value in event.metrics.items()
    )
    return f"{event.role}, epoch {event.epoch}: {numbers}"


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


@contextmanager
def drawing_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar for work that calls back with (done, total)."""
    with Progress(
        TextColumn(what), BarColumn(), MofNCompleteColumn(), console=Console(stderr=True), transient=True
    ) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
