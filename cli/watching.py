"""Following a job to its end: the engine's own progress bar, fed from the API."""

import time
from collections.abc import Iterator
from contextlib import nullcontext

from rich.console import Console

from cli.client import Client, Json
from frs import events
from frs.progress import Bar

POLL_SECONDS = 1.0


def follow(client: Client, job_id: str, console: Console | None) -> Json:
    """The job once it has ended; with a console, its bar and evaluations meanwhile. Ctrl-C leaves the job running."""
    job = client.get(f"/jobs/{job_id}")
    with Bar(console) if console else nullcontext() as bar:
        feed = _Feed(client, job_id)
        while True:
            job = client.get(f"/jobs/{job_id}")
            if bar is not None:
                for event in feed.news(job):
                    bar(event)
            if job["is_terminal"]:
                return job
            time.sleep(POLL_SECONDS)


def family(job: Json) -> list[str]:
    """Ids of the jobs it brought along, in the order they end."""
    last = [job["comparison_job_id"]] if job["comparison_job_id"] else []
    return [*job["sibling_job_ids"], *job["baseline_job_ids"], *last]


class _Feed:
    """What is new about a job since it was last asked, as the events its trainer told."""

    def __init__(self, client: Client, job_id: str) -> None:
        self.client, self.path = client, f"/jobs/{job_id}"
        self.since: int | None = None
        self.evaluations = 0
        self.state = ""

    def news(self, job: Json) -> Iterator[events.Event]:
        yield from self._state(job)
        if job["progress"]:
            yield events.Progress(**job["progress"])
            yield from self._metrics()
        yield from self._evaluations()

    def _state(self, job: Json) -> Iterator[events.Event]:
        reason = (job["status_reason"] or {}).get("code", "")
        state = job["phase"] or reason.replace("_", " ") or job["status"]
        if state != self.state and not job["is_terminal"]:
            self.state = state
            yield events.Phase(phase=state)
        if job["is_terminal"]:
            yield _outcome(job)

    def _metrics(self) -> Iterator[events.Event]:
        answer = self.client.get(f"{self.path}/metrics", since=self.since, max_points=2)
        self.since = answer["next_since"]
        values = {line["key"]: line["last"] for line in answer["series"] if line["last"] is not None}
        if values:
            yield events.Metrics(
                step=max(line["x"][-1] for line in answer["series"] if line["x"]), epoch=0, values=values
            )

    def _evaluations(self) -> Iterator[events.Event]:
        rows = list(self.client.each(f"{self.path}/evaluations"))
        for row in rows[self.evaluations :]:
            yield events.Evaluation(
                **{name: row[name] for name in events.Evaluation.model_fields if name in row and name != "time"}
            )
        self.evaluations = len(rows)


def _outcome(job: Json) -> events.Outcome:
    succeeded = job["status"] == "succeeded"
    error = events.Problem(**job["error"]) if job["error"] else None
    return events.Outcome(status="succeeded" if succeeded else "failed", end_reason=job["end_reason"], error=error)
