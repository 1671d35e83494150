"""One attempt of a job: prepare its inputs, run the trainer, record its events and files, and write how it ended."""

import errno
import threading
import time
from collections.abc import Sequence
from contextlib import suppress

import structlog
from sqlalchemy.orm import Session

from frs import events
from frs.errors import FrsError, StorageFull
from frs.events import Artifact, Checkpoint, Event, Log, Outcome, Phase
from frs.resolved import ResolvedSpec
from store.artifacts import unpacking
from store.artifacts.local_files import Abandoned
from store.artifacts.storage import open_artifacts
from store.db import queries, tables
from store.db.database import Database
from store.errors import ArtifactsUnavailable, LeaseLost
from store.jobs.checkpoints import newest_checkpoints
from store.jobs.lease import Lease, RequestedAction
from store.jobs.recording import keys_in_use
from store.settings import Settings
from store.states import EndReason
from worker.attempt import finalizer, work_folder
from worker.attempt.finalizer import Finalizer
from worker.attempt.heartbeat import Heartbeat
from worker.attempt.inputs import AttemptInputs
from worker.attempt.recorder import FLUSH_SECONDS, AttemptRecorder
from worker.attempt.resolve import resolve_job
from worker.process.oom_kills import oom_kill_count
from worker.process.output import OutputLog, escape_control
from worker.process.pipes import Line
from worker.process.trainer import COMMAND, TrainerProcess

CANCEL_GRACE_SECONDS = 5.0
"""Time from SIGTERM to SIGKILL for the trainer of a cancelled job."""
STORAGE_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS})
"""Errors after which a job waits for storage; after any other OSError the attempt counts as crashed."""
_log = structlog.get_logger()


class Supervisor:
    """Runs one attempt and is its only writer.

    It owns the trainer, the heartbeat and the work folder. `run` blocks the calling thread until the attempt has ended;
    `release` may be called from any thread. A lost lease is logged; failures of the attempt are written to the job's
    row. Unexpected errors of the database are raised; the lease then expires.
    """

    def __init__(
        self,
        database: Database,
        settings: Settings,
        lease: Lease,
        command: Sequence[str] = COMMAND,
        gpus: Sequence[str] | None = None,
    ) -> None:
        """`gpus` are the trainer's; None means that this host has none."""
        self.settings, self.lease, self.gpus = settings, lease, gpus
        self.folder = work_folder.attempt_folder(settings.work_root, lease)
        self.artifacts = open_artifacts(settings)
        self.trainer = TrainerProcess(
            [*command, "train", "--spec", str(self.folder / work_folder.SPEC), "--workdir", str(self.folder)],
            fence_at=time.monotonic() + settings.fence_seconds,
            stall_timeout_seconds=settings.stall_timeout_seconds,
            gpus=gpus,
        )
        self.heartbeat = Heartbeat(database, settings, lease, self.trainer, self._apply_requested_action)
        self.recorder = AttemptRecorder(
            database, self.artifacts, lease, self.folder, is_abandoned=lambda: self.trainer.fenced
        )
        self.output = OutputLog()
        self.phase = "starting"
        """The trainer's last phase event."""
        self.outcome: Outcome | None = None
        """The trainer's outcome event."""
        self._oom_kills = oom_kill_count()
        self._released = threading.Event()

    def release(self) -> None:
        """Return the job to the queue; the trainer may save a checkpoint within `grace_seconds`."""
        self._released.set()
        self.trainer.stop(self.settings.grace_seconds)

    def run(self) -> None:
        """Run the attempt. On return the trainer is dead, and the job has ended, is queued or has another attempt."""
        with structlog.contextvars.bound_contextvars(**self.lease.log_fields()):
            try:
                with self.heartbeat:
                    self._run()
            except LeaseLost as error:
                _log.warning("The lease was lost.", reason=error.message)
                self.trainer.kill()
                if not self.heartbeat.lost:
                    self._return_job_late()
            finally:
                self.trainer.kill()
                work_folder.remove(self.folder)

    def _run(self) -> None:
        _log.info("The attempt has started.")
        finalize = self._run_trainer()
        self.trainer.kill()
        if self.heartbeat.lost:
            raise LeaseLost("Noticed by the heartbeat.")
        _log.info("The attempt has ended.", status=self.recorder.write(finalize))

    def _return_job_late(self) -> None:
        """Return the job once the database answers again, unless it was requeued meanwhile."""
        self.recorder.wait_for_database(is_abandoned=self._released.is_set)
        with suppress(LeaseLost):
            self.recorder.write(self._after_fence())

    def _after_fence(self) -> Finalizer:
        seconds = self.settings.fence_seconds
        cause = f"the worker could not renew its lease for {seconds:g} s and ended the trainer"
        message = f"Attempt {self.lease.attempt}: {cause}."
        return finalizer.requeued(message, attempt_counts=False)

    def _run_trainer(self) -> Finalizer:
        """Run the trainer and return how the attempt ends. Raises LeaseLost."""
        try:
            self._prepare()
            self.trainer.start()
            self._record_lines()
            return self._choose_finalizer()
        except Abandoned:
            cancelled = self.heartbeat.requested_action is RequestedAction.CANCEL
            return finalizer.cancelled() if cancelled else finalizer.requeued(attempt_counts=False)
        except LeaseLost:
            raise
        except StorageFull as error:
            return finalizer.waiting_for_storage(error.message)
        except FrsError as error:
            return finalizer.failed_by(error)
        except OSError as error:
            _log.warning("A file could not be read or written.", error=str(error))
            if error.errno not in STORAGE_ERRNOS:
                return finalizer.requeued(attempt_counts=True)
            return finalizer.waiting_for_storage(storage_message(error))
        except Exception as error:
            _log.exception("The supervisor failed.")
            return finalizer.failed(EndReason.INTERNAL_ERROR, f"The supervisor failed: {type(error).__name__}.")

    def _prepare(self) -> None:
        work_folder.check_space(self.settings)
        for upload_key in self.recorder.read(self._upload_keys):
            unpacking.unpack_dataset(self.settings, self.artifacts, upload_key, self._is_abandoned)
        spec, inputs, checkpoints, keys = self.recorder.read(self._query_inputs)
        if self._is_abandoned():  # an attempt without the lease might delete the artifacts of its successor
            raise Abandoned
        self.artifacts.keep_only(self.lease.job_id, keys)  # earlier attempts can no longer add rows
        work_folder.prepare(self.folder, spec, inputs, checkpoints, self.artifacts, self._is_abandoned)

    def _upload_keys(self, session: Session) -> list[str]:
        datasets = queries.datasets_of(session, session.get_one(tables.Job, self.lease.job_id))
        return [dataset.upload_key for dataset in datasets if dataset.upload_key]

    def _query_inputs(self, session: Session) -> tuple[ResolvedSpec, AttemptInputs, list[tables.Checkpoint], set[str]]:
        job, inputs = session.get_one(tables.Job, self.lease.job_id), AttemptInputs(self.folder)
        spec = resolve_job(session, self.settings, job, inputs)
        return spec, inputs, newest_checkpoints(session, job.id), keys_in_use(session, job.id)

    def _is_abandoned(self) -> bool:
        """Return whether the trainer should not be started any more."""
        stop_requested = self._released.is_set() or self.heartbeat.requested_action in (
            RequestedAction.CANCEL,
            RequestedAction.PAUSE,
        )
        return stop_requested or self.heartbeat.lost or self.trainer.fenced

    def _apply_requested_action(self, requested_action: RequestedAction) -> None:
        """Pass the action on to the trainer. The heartbeat's thread calls this at every beat; it is idempotent."""
        match requested_action:
            case RequestedAction.CANCEL:
                self.trainer.stop(within=min(CANCEL_GRACE_SECONDS, self.settings.grace_seconds))
            case RequestedAction.PAUSE:
                self.trainer.stop(within=self.settings.grace_seconds)
            case RequestedAction.STOP:
                work_folder.request_stop(self.folder)

    def _record_lines(self) -> None:
        """Record the trainer's lines until it is dead. Once the lease is lost or the job is cancelled, discard them."""
        for line in self.trainer.lines(FLUSH_SECONDS):
            if self._discards_lines:
                continue
            if line is None:
                self.recorder.flush()
            else:
                self._record_line(line)
        if not self._discards_lines:
            self.recorder.add(*self.output.flush())
            self.recorder.flush()

    @property
    def _discards_lines(self) -> bool:
        return self.heartbeat.lost or self.heartbeat.requested_action is RequestedAction.CANCEL

    def _record_line(self, line: Line) -> None:
        if line.source == "output":
            self.recorder.add(*self.output.add(line.data))
        else:
            self._record_event(_parse_event(line.data))

    def _record_event(self, event: Event) -> None:
        match event:
            case Outcome():
                self.outcome = event
            case Checkpoint() | Artifact():
                self.recorder.store(event)
            case Phase():
                self.phase = event.phase
                self.trainer.stall_timeout_seconds = self._stall_timeout
                self.recorder.add(event)
            case Log():
                self.recorder.add(event.model_copy(update={"message": escape_control(event.message)}))
            case _:
                self.recorder.add(event)

    @property
    def _stall_timeout(self) -> float:
        is_training = self.phase == "training"
        return self.settings.step_stall_timeout_seconds if is_training else self.settings.stall_timeout_seconds

    def _choose_finalizer(self) -> Finalizer:
        if self.heartbeat.requested_action is RequestedAction.CANCEL:
            return finalizer.cancelled()
        if self.outcome and self.outcome.status == "succeeded" and self.recorder.rejection:
            return finalizer.failed_with(EndReason.INTERNAL_ERROR, self.recorder.rejection)
        if self.outcome is None and self.trainer.stalled:
            return finalizer.stalled(self._stall_timeout, self.phase, self.output.tail)
        # SIGTERM kills a trainer that has not installed its handler yet.
        stop_requested = self._released.is_set() or self.heartbeat.requested_action is RequestedAction.PAUSE
        if self.outcome is None and stop_requested:
            return finalizer.requeued(attempt_counts=False)
        if self.outcome is None and self.trainer.killed:
            return self._after_fence()
        killed_for_memory = oom_kill_count() > self._oom_kills
        return finalizer.finalizer_for(self.outcome, self.trainer.exit_code, self.output.tail, killed_for_memory)


def storage_message(error: OSError) -> str:
    """Return the message of a job or worker request that waits because of this error."""
    if isinstance(error, ArtifactsUnavailable):
        return f"The artifact store cannot be used: {error.strerror}."
    return f"A file could not be written: {error.strerror or type(error).__name__}."


def _parse_event(line: bytes) -> Event:
    try:
        return events.parse(line)
    except ValueError:
        start = line[:200].decode(errors="replace")
        return Log(level="warning", message=f"The trainer sent a line of {len(line)} bytes that is no event: {start}")
