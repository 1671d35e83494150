"""Follow a job until it ends, with the engine's progress bar fed from the job's event stream."""

from collections.abc import Iterator
from contextlib import nullcontext
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from rich.console import Console

from frs import events
from frs.cli.progress import Bar
from frs_client import Client, Json
from frs_client.requests import path_of
from frs_client.sse import StreamEvent

E = TypeVar("E", bound=BaseModel)


def follow(client: Client, job_id: str, console: Console | None) -> Json:
    """Wait until the job has ended and return it. With a console, draw a progress bar and print the evaluations.

    The service has answered `client` before, and may restart meanwhile. Ctrl-C does not stop the job. Raises
    ServiceError if the stream cannot be read (`Client.events`).
    """
    path = path_of("jobs", job_id)
    since: int = client.get_again(f"{path}/metrics", max_points=2)["next_since"]
    with Bar(console) if console else nullcontext() as bar:
        if bar:
            _draw(bar, _past_events(client, path, since))
        while True:
            for stream_event in client.events(job_id, since=since):
                since = stream_event.id if stream_event.id is not None else since
                if bar:
                    _draw(bar, _engine_events(client, path, stream_event))
            job = client.get_again(path)
            if job["is_terminal"]:  # otherwise it was resumed just now
                if bar:
                    _draw(bar, _outcome(job))
                return job


def follow_group(client: Client, job: Json, console: Console | None) -> list[Json]:
    """Follow a job, then its seed runs, baselines and comparison; return them.

    The list ends with the first job that did not succeed. Errors as those of `follow`.
    """
    jobs: list[Json] = []
    for job_id in (job["id"], *derived_job_ids(job)):
        jobs.append(follow(client, job_id, console))
        if jobs[-1]["status"] != "succeeded":
            break
    return jobs


def derived_job_ids(job: Json) -> list[str]:
    """Return the ids of the seed runs, baselines and comparison created with the job, in the order they end."""
    comparison = [job["comparison_job_id"]] if job["comparison_job_id"] else []
    return [*job["seed_job_ids"], *job["baseline_job_ids"], *comparison]


def _draw(bar: Bar, job_events: Iterator[events.Event]) -> None:
    for event in job_events:
        bar(event)


def _past_events(client: Client, path: str, since: int) -> Iterator[events.Event]:
    """Yield what happened before the stream starts: the evaluations up to `since` and the job's current state."""
    for event in client.each(f"{path}/events", limit=200):
        if event["type"] == "evaluation" and event["seq"] <= since:
            yield from _evaluation(event["data"])
    yield from _state(client.get_again(path))


def _engine_events(client: Client, path: str, stream_event: StreamEvent) -> Iterator[events.Event]:
    """Convert an event of the stream to the trainer's events."""
    match stream_event.type:
        case "status":
            yield from _state(client.get_again(path))  # includes the reason a queued job waits
        case "phase":
            yield from _readable(events.Phase, stream_event.data)
        case "progress":
            yield from _readable(events.Progress, stream_event.data)
        case "metric":
            yield from _readable(events.Metrics, stream_event.data)
        case "evaluation":
            yield from _evaluation(stream_event.data)
        case "cancel_requested" | "pause_requested" | "stop_requested":
            action = stream_event.type.removesuffix("_requested").capitalize()
            message = f"{action} requested by {stream_event.data.get('by', 'unknown')}."
            yield from _readable(events.Log, {"level": "warning", "message": message})


def _state(job: Json) -> Iterator[events.Event]:
    reason = (job["status_reason"] or {}).get("code", "")
    if not job["is_terminal"]:
        yield from _readable(events.Phase, {"phase": job["phase"] or reason.replace("_", " ") or job["status"]})


def _evaluation(data: Json) -> Iterator[events.Evaluation]:
    yield from _readable(events.Evaluation, data | {"per_class": {}})


def _outcome(job: Json) -> Iterator[events.Outcome]:
    status = "succeeded" if job["status"] == "succeeded" else "failed"
    yield from _readable(events.Outcome, {"status": status, "end_reason": job["end_reason"], "error": job["error"]})


def _readable(kind: type[E], data: Json) -> Iterator[E]:
    """Yield the event with the fields that this version knows; nothing if it cannot read what a later one sent."""
    try:
        event = kind.model_validate({name: data[name] for name in kind.model_fields if name in data})
    except ValidationError:
        return
    yield event
