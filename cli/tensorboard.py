"""`frs tensorboard`: write the metrics of jobs as TensorBoard files, read from the public API, and open them."""

import importlib.util
import math
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from contextlib import closing, suppress
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.arguments import job_ids
from cli.terminal import DEFAULT_DATA_DIR, DataFolder, call_service, fail, stderr, stdout
from cli.watching import derived_job_ids
from frs_client import Client, Json, ServiceError
from frs_client.requests import path_of
from frs_client.sse import StreamEvent

MAX_JOBS = 50
"""Jobs in one TensorBoard; each running job needs an event stream (`FRS_MAX_STREAMS_PER_KEY`)."""
REFRESH_SECONDS = 10.0
"""Interval of the queries for new and resumed jobs."""
FLUSH_SECONDS = 2
QUEUED_EVENTS = 1000
app = typer.Typer()


@app.command()
def tensorboard(
    ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="[JOB]...", autocompletion=job_ids, help="Jobs, each with its run group."),
    ] = None,
    last: Annotated[int, typer.Option(min=1, max=MAX_JOBS, help="Without JOB: number of the newest jobs.")] = 20,
    output: Annotated[Path | None, typer.Option(help="Only write the files to this folder, as of now.")] = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of TensorBoard on this machine.")] = 6006,
    data: DataFolder = DEFAULT_DATA_DIR,
) -> None:
    """Open the metrics of jobs in TensorBoard, live. Ctrl-C stops TensorBoard, not the jobs."""
    if importlib.util.find_spec("tensorboard") is None:
        fail(ServiceError("TensorBoard is not installed.", "Run `pip install 'frs-distill[tensorboard]'`."))
    call_service(data, lambda client: _run(client, ids or [], last, output, port))


class RunFile:
    """The TensorBoard file of one job, in a folder of its own; it is created with the first metrics.

    When a job resumes, an entry for a restart makes the readers drop the steps that the job repeats.
    """

    def __init__(self, folder: Path) -> None:
        self.newest = 0
        """Number of the newest event that was added."""
        self._folder = folder
        self._writer: Any = None
        self._last_steps: dict[str, int] = {}

    def add(self, event: StreamEvent) -> None:
        """Write an event of the job's stream; only `metric` and `rewound` matter."""
        self.newest = event.id or self.newest
        match event.type:
            case "metric":
                self._add_values(event.data)
            case "rewound" if self._writer is not None:
                self._restart_after(event.data["to_step"], event.data)

    def close(self) -> None:
        """Write what is buffered."""
        if self._writer is not None:
            self._writer.close()

    def _add_values(self, data: Json) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        step = data["step"]
        values = {key: value for key, value in data["values"].items() if value is not None}
        new = {key: value for key, value in values.items() if step > self._last_steps.get(key, -1)}
        self._last_steps |= dict.fromkeys(new, step)
        if new:
            summary = Summary(value=[Summary.Value(tag=key, simple_value=value) for key, value in new.items()])
            self._write(data, step, summary=summary)

    def _restart_after(self, step: int, data: Json) -> None:
        from tensorboard.compat.proto.event_pb2 import SessionLog

        self._last_steps = {key: min(last, step) for key, last in self._last_steps.items()}
        self._write(data, step + 1, session_log=SessionLog(status=SessionLog.START))

    def _write(self, data: Json, step: int, **content: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        if self._writer is None:
            self._writer = EventFileWriter(str(self._folder), QUEUED_EVENTS, FLUSH_SECONDS)
        self._writer.add_event(Event(wall_time=datetime.fromisoformat(data["at"]).timestamp(), step=step, **content))


def _run(client: Client, ids: Sequence[str], last: int, output: Path | None, port: int) -> Json:
    if output is not None:
        _write_files(client, _selected_jobs(client, ids, last), output)
        stdout.print(f"tensorboard --logdir {output}", markup=False, highlight=False, soft_wrap=True)
        return {}
    with tempfile.TemporaryDirectory(prefix="frs-tensorboard-", ignore_cleanup_errors=True) as folder:
        followers = Followers(client, Path(folder))
        followers.follow(_selected_jobs(client, ids, last))
        command = [sys.executable, "-m", "tensorboard.main", "--logdir", folder, "--port", str(port)]
        server = subprocess.Popen([*command, "--reload_interval", "5"])
        try:
            while server.poll() is None:
                with suppress(subprocess.TimeoutExpired):
                    server.wait(REFRESH_SECONDS)
                with suppress(ServiceError):  # the service may be restarting
                    followers.follow(_selected_jobs(client, ids, last))
        finally:
            server.terminate()
            server.wait()
    raise typer.Exit(server.returncode)


def _write_files(client: Client, jobs: Sequence[Json], folder: Path) -> None:
    """Write the files of the jobs as of now, and remove those of an earlier call."""
    for job in jobs:
        newest = client.get(path_of("jobs", job["id"], "metrics"), max_points=2)["next_since"]
        run_folder = folder / _folder_name(job)
        for earlier in run_folder.glob("events.out.tfevents.*"):
            earlier.unlink()
        with closing(RunFile(run_folder)) as file:
            _add_events(client, job["id"], file, newest)


class Followers:
    """Threads that write the events of jobs to files while they run."""

    def __init__(self, client: Client, folder: Path) -> None:
        self._client, self._folder = client, folder
        self._files: dict[str, RunFile] = {}
        self._threads: dict[str, threading.Thread] = {}

    def follow(self, jobs: Sequence[Json]) -> None:
        """Follow the jobs that are new, and those that run again after their end."""
        for job in jobs:
            thread = self._threads.get(job["id"])
            if thread is None or not (thread.is_alive() or job["is_terminal"]):
                file = self._files.setdefault(job["id"], RunFile(self._folder / _folder_name(job)))
                self._threads[job["id"]] = threading.Thread(target=self._write, args=[job["id"], file], daemon=True)
                self._threads[job["id"]].start()

    def _write(self, id: str, file: RunFile) -> None:
        try:
            _add_events(self._client, id, file)
        except ServiceError as error:
            stderr.print(f"Job {id}: {error.message}", markup=False, highlight=False)


def _add_events(client: Client, id: str, file: RunFile, until: float = math.inf) -> None:
    """Write the job's events up to number `until`, or until the job has ended."""
    for event in client.events(id, since=file.newest):
        file.add(event)
        if file.newest >= until:
            return


def _selected_jobs(client: Client, ids: Sequence[str], last: int) -> list[Json]:
    """Return the newest jobs, or the jobs of the ids with their baselines, seed variants and comparisons."""
    if not ids:
        newest: list[Json] = client.get("/jobs", limit=last)["data"]
        return newest
    jobs: dict[str, Json] = {}
    for id in ids:
        job = client.get(path_of("jobs", id))
        group = [job, *(client.get(path_of("jobs", derived)) for derived in derived_job_ids(job))]
        jobs |= {member["id"]: member for member in group}
    if len(jobs) > MAX_JOBS:
        raise ServiceError(f"These are {len(jobs)} jobs, with their run groups; at most {MAX_JOBS} fit.")
    return list(jobs.values())


def _folder_name(job: Json) -> str:
    """Return TensorBoard's name of the run: the job's name, and the end of its id, which makes it unique."""
    name = re.sub(r"[^A-Za-z0-9.-]+", "_", job["name"] or job["kind"])[:60].strip("._")
    return f"{name}-{job['id'][-6:]}"
