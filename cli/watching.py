"""Following a job to its end: the engine's own progress bar, fed from the job's stream."""

from collections.abc import Iterator
from contextlib import nullcontext

from rich.console import Console

from cli.client import Client, Json
from cli.sse import StreamEvent
from frs import events
from frs.cli.progress import Bar


def follow(client: Client, job_id: str, console: Console | None) -> Json:
    """The job once it has ended; with a console, its bar and evaluations meanwhile. Ctrl-C leaves the job running."""
    path = f"/jobs/{job_id}"
    since: int = client.get(f"{path}/metrics", max_points=2)["next_since"]
    with Bar(console) if console else nullcontext() as bar:
        if bar:
            _show(bar, _so_far(client, path, since))
        while True:
            for news in client.events(job_id, since=since):
                since = news.id if news.id is not None else since
                if bar:
                    _show(bar, _told(client, path, news))
            job = client.get(path)
            if job["is_terminal"]:  # or it was resumed just now
                if bar:
                    bar(_outcome(job))
                return job


def derived_job_ids(job: Json) -> list[str]:
    """Ids of the jobs it brought along, in the order they end."""
    last = [job["comparison_job_id"]] if job["comparison_job_id"] else []
    return [*job["seed_job_ids"], *job["baseline_job_ids"], *last]


def _show(bar: Bar, told: Iterator[events.Event]) -> None:
    for event in told:
        bar(event)


def _so_far(client: Client, path: str, since: int) -> Iterator[events.Event]:
    """What a bar shows of the time before it was there: the evaluations, and how the job stands."""
    for event in client.each(f"{path}/events", limit=200):
        if event["type"] == "evaluation" and event["seq"] <= since:
            yield _evaluation(event["data"])
    yield from _state(client.get(path))


def _told(client: Client, path: str, news: StreamEvent) -> Iterator[events.Event]:
    """A stream's event as the job's trainer told it."""
    match news.type:
        case "status":
            yield from _state(client.get(path))  # which also says what a queued job waits for
        case "phase":
            yield events.Phase(phase=news.data["phase"])
        case "progress":
            yield events.Progress(**news.data)
        case "metric":
            yield events.Metrics(**{name: news.data[name] for name in ("step", "epoch", "values")})
        case "evaluation":
            yield _evaluation(news.data)


def _state(job: Json) -> Iterator[events.Event]:
    reason = (job["status_reason"] or {}).get("code", "")
    if not job["is_terminal"]:
        yield events.Phase(phase=job["phase"] or reason.replace("_", " ") or job["status"])


def _evaluation(data: Json) -> events.Evaluation:
    known = {name: data[name] for name in events.Evaluation.model_fields if name in data}
    return events.Evaluation(**known, per_class={})


def _outcome(job: Json) -> events.Outcome:
    succeeded = job["status"] == "succeeded"
    error = events.ErrorInfo(**job["error"]) if job["error"] else None
    return events.Outcome(status="succeeded" if succeeded else "failed", end_reason=job["end_reason"], error=error)
