"""`client.jobs`."""

import math
import time
from collections.abc import AsyncIterator, Collection, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from frs_client.aio import pulling
from frs_client.aio.transport import AsyncTransport
from frs_client.answers import Json, body_of, parse
from frs_client.errors import ServiceError
from frs_client.files import image_type
from frs_client.frames import MetricCurves
from frs_client.models import (
    Artifact,
    Checkpoint,
    Evaluation,
    Event,
    Export,
    ExportSettings,
    Job,
    JobDetails,
    JobSpec,
    LogLine,
    Plan,
    Prediction,
    Probe,
    Report,
)
from frs_client.requests import PAGE_ROWS, path_of, time_text
from frs_client.sse import StreamEvent

Spec = JobSpec | Mapping[str, Any]
Format = Literal["onnx", "onnx-int8", "onnx-no-nms"]
PROBE_POLL_SECONDS = 0.5
UNCHANGED: Any = object()
"""The default of arguments for which None has a meaning."""


class AsyncJobs:
    """Jobs: trainings, evaluations, exports and comparisons.

    `job_id` is the id of a job, such as `job_01m8jvma4mvbxh6kf37dvz99bj`. Every method raises ApiError if the service
    refuses the call, such as with the code `job_not_found`, and NoAnswer if it does not answer.
    """

    def __init__(self, client: AsyncTransport) -> None:
        self._client = client

    async def submit(self, spec: Spec, *, idempotency_key: str | None = None) -> Job:
        """Add a job to the queue, with its baseline, seed variants and comparison if the spec has `baseline`.

        The request is sent again if its answer is lost, and the service carries it out once: a key is sent with it. If
        this raises NoAnswer, the next equal call within a day continues it; `idempotency_key` replaces the key.
        """
        return parse(Job, await self._client.post("/jobs", body_of(spec), key=idempotency_key))

    async def plan(self, spec: Spec) -> Plan:
        """Check a spec without submitting it: `plan.ok`, `plan.checks`."""
        return parse(Plan, await self._client.post("/jobs/plan", body_of(spec)))

    async def probe(self, spec: Spec, timeout: float = math.inf) -> Probe:
        """Return time and memory of a job, which a worker measures in a few training steps: `probe.result`.

        Waits for a free worker. Raises ServiceError if the probe fails, and TimeoutError after `timeout` seconds.
        """
        probe_id = (await self._client.post("/jobs/plan", body_of(spec), probe=True))["id"]
        async for answer in self._client.poll(path_of("plans", probe_id), PROBE_POLL_SECONDS, timeout):
            probe = parse(Probe, answer)
            if probe.status == "failed" and probe.error:
                raise ServiceError(f"{probe.error.code}: {probe.error.message}", probe.error.hint)
            if probe.status not in ("queued", "running"):
                return probe
        raise TimeoutError(f"The probe {probe_id} has not ended in time.")

    async def list(
        self,
        *,
        status: str | Collection[str] | None = None,
        kind: str | Collection[str] | None = None,
        name: str | None = None,
        dataset: str | None = None,
        tag: str | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        own: bool = False,
    ) -> AsyncIterator[Job]:
        """Yield jobs, newest first; pages are requested as they are needed.

        `status` and `kind` are one or several values, `name` is a part of the name, `dataset` an id or a name. Times
        without a zone are local. With `own`, an admin key, too, lists the jobs of its own owner only.
        """
        rows = self._client.each(
            "/jobs",
            limit=PAGE_ROWS,
            status=_several(status),
            kind=_several(kind),
            name=name,
            dataset=dataset,
            tag=tag,
            created_after=time_text(created_after),
            created_before=time_text(created_before),
            own=own or None,
        )
        async for row in rows:
            yield parse(Job, row)

    async def get(self, job_id: str) -> JobDetails:
        """Return a job: its status, progress, and why it waits or ended."""
        return parse(JobDetails, await self._client.get(path_of("jobs", job_id)))

    async def wait(self, job_id: str, timeout: float = math.inf, *, derived: bool = False) -> JobDetails:
        """Wait until the job has ended and return it, whatever its `status`: succeeded, failed or cancelled.

        With `derived`, also wait for its seed variants, baselines and comparison, which its report needs. Restarts of
        the service are survived (`stream`). Raises TimeoutError after `timeout` seconds, at most 15 s late; the job
        then continues.
        """
        deadline = time.monotonic() + timeout
        job = await self._wait(job_id, deadline)
        if derived:
            comparison = [job.comparison_job_id] if job.comparison_job_id else []
            for derived_id in (*job.seed_job_ids, *job.baseline_job_ids, *comparison):
                await self._wait(derived_id, deadline)
        return job

    async def stream(self, job_id: str, since: int = 0) -> AsyncIterator[StreamEvent]:
        """Yield the job's events after number `since`, live, until the job has ended.

        The stream is resumed after its last event if it breaks: no event is missing or repeated. Raises NoAnswer if the
        service does not return within two minutes.
        """
        async for event in self._client.events(job_id, since):
            yield event

    async def metrics(
        self,
        job_id: str,
        keys: Collection[str] | None = None,
        *,
        x: Literal["step", "epoch", "time"] = "step",
        since: int = 0,
        max_points: int = 500,
    ) -> MetricCurves:
        """Return the metric curves of a job, as `series`, `rows()`, `to_pandas()` or `to_polars()`.

        `keys` are metrics such as `train/loss` and `val/bbox_mAP`, None: all. `max_points` (2 to 10,000) limits each
        curve; extremes are kept. `since` is `next_since` of earlier curves.
        """
        query = {"keys": None if keys is None else ",".join(_several(keys) or ()), "x": x, "since": since}
        answer = await self._client.get(path_of("jobs", job_id, "metrics"), **query, max_points=max_points)
        return parse(MetricCurves, answer | {"x_name": x})

    async def report(self, job_id: str, student: Literal["last", "best"] = "last") -> Report:
        """Return the comparison of teacher, baseline and student, with the verdict in `comparison`.

        The report of the best student has no baseline: gain and verdict compare last students.
        """
        return parse(Report, await self._client.get(path_of("jobs", job_id, "report"), student=student))

    async def logs(self, job_id: str, tail: int | None = None) -> AsyncIterator[LogLine]:
        """Yield the log lines of the job's trainer, oldest first; with `tail`, only the newest (1 to 200)."""
        async for row in self._client.each(path_of("jobs", job_id, "logs"), limit=PAGE_ROWS, tail=tail):
            yield parse(LogLine, row)

    async def events(self, job_id: str) -> AsyncIterator[Event]:
        """Yield the job's history, oldest first, without log lines and metrics."""
        async for row in self._client.each(path_of("jobs", job_id, "events"), limit=PAGE_ROWS):
            yield parse(Event, row)

    async def evaluations(self, job_id: str) -> AsyncIterator[Evaluation]:
        """Yield the evaluations of the job's student and teacher."""
        async for row in self._client.each(path_of("jobs", job_id, "evaluations")):
            yield parse(Evaluation, row)

    async def checkpoints(self, job_id: str) -> AsyncIterator[Checkpoint]:
        """Yield the checkpoints of the job."""
        async for row in self._client.each(path_of("jobs", job_id, "checkpoints")):
            yield parse(Checkpoint, row)

    async def artifacts(self, job_id: str) -> AsyncIterator[Artifact]:
        """Yield the files that the job left, other than checkpoints."""
        async for row in self._client.each(path_of("jobs", job_id, "artifacts")):
            yield parse(Artifact, row)

    async def pull(
        self, job_id: str, to: Path | str = "students", student: Literal["last", "best"] = "last"
    ) -> tuple[Path, ...]:
        """Write the student's weights, config and report to the folder `to`; return the paths, weights first.

        For the last student, also the safetensors copy and the report images. Downloads resume if they break, and each
        file has the SHA-256 that the service reports. Raises ServiceError if the job has no student yet.
        """
        return await pulling.pull(self._client, job_id, Path(to), student)

    async def pull_artifacts(
        self, job_id: str, to: Path | str, suffixes: Collection[str] | None = None
    ) -> tuple[Path, ...]:
        """Write the job's artifacts to the folder `to`; return the paths. `suffixes` such as `(".onnx",)` select some.

        With the id of an export, these are its ONNX files, `export.json` and `frs_runner.py`.
        """
        return await pulling.pull_artifacts(self._client, job_id, Path(to), suffixes)

    async def cancel(self, job_id: str) -> Job:
        """Cancel the job at once, with its baselines, seed variants and comparison."""
        return await self._act(job_id, "cancel")

    async def stop(self, job_id: str) -> Job:
        """Stop a running job at its next step; its student is saved and evaluated."""
        return await self._act(job_id, "stop")

    async def pause(self, job_id: str) -> Job:
        """Pause the job and free its slot; `resume` continues it."""
        return await self._act(job_id, "pause")

    async def resume(self, job_id: str) -> Job:
        """Requeue a paused, failed or cancelled job, to continue from its last checkpoint."""
        return await self._act(job_id, "resume")

    async def retry(self, job_id: str) -> Job:
        """Requeue a failed or cancelled job, to start from scratch; its previous results are deleted."""
        return await self._act(job_id, "retry")

    async def edit(
        self, job_id: str, *, name: str | None = UNCHANGED, tags: Collection[str] = UNCHANGED, priority: int = UNCHANGED
    ) -> Job:
        """Change a job's name (None removes it), tags or priority (-100 to 100)."""
        changes = {"name": name, "tags": tags, "priority": priority}
        body = {field: value for field, value in changes.items() if value is not UNCHANGED}
        return parse(Job, await self._client.patch(path_of("jobs", job_id), body))

    async def delete(self, job_id: str, artifacts: Literal["delete", "keep"] = "delete") -> None:
        """Delete a job that has ended, with its baselines, seed variants, comparison and, unless kept, their files."""
        await self._client.delete(path_of("jobs", job_id), artifacts=artifacts)

    async def export(self, job_id: str, settings: ExportSettings | Mapping[str, Any] | None = None) -> Job:
        """Start an export of the job's student as ONNX files and return its job; sent once, like `submit`.

        `wait` for the returned job, then `pull_artifacts` with its id.
        """
        body = body_of(settings or {})
        return parse(Job, await self._client.post(path_of("jobs", job_id, "exports"), body))

    async def exports(self, job_id: str) -> AsyncIterator[Export]:
        """Yield the exports of the job's student, newest first: whether each passed, and its report.

        Of a job of kind `export`, that one.
        """
        async for row in self._client.each(path_of("jobs", job_id, "exports")):
            yield parse(Export, row)

    async def predict(
        self,
        job_id: str,
        image: Path | str,
        *,
        compare: Collection[str] = (),
        threshold: float = 0.3,
        format: Format = "onnx",
    ) -> Prediction:
        """Find objects on an image of at most 20 MB with the exported student of a job.

        `compare` may name `teacher` and `baseline`, which must be exported, too. `threshold` is the lowest score, 0 to
        1. Boxes are x1, y1, x2, y2 in pixels.
        """
        file = Path(image)
        query: Json = {"compare": [*compare] or None, "threshold": threshold, "format": format}
        path = path_of("jobs", job_id, "predict")
        return parse(Prediction, await self._client.upload(path, file, image_type(file), **query))

    async def _wait(self, job_id: str, deadline: float) -> JobDetails:
        job = await self.get(job_id)
        while not job.is_terminal:  # again if it was resumed just now
            async for _ in self._client.events(job_id, deadline=deadline):
                pass
            job = parse(JobDetails, await self._client.get_again(path_of("jobs", job_id), deadline=deadline))
        return job

    async def _act(self, job_id: str, action: str) -> Job:
        return parse(Job, await self._client.post(path_of("jobs", job_id, action)))


def _several(values: str | Collection[str] | None) -> "list[str] | None":
    return [values] if isinstance(values, str) else None if values is None else [*values]
