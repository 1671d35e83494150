"""One attempt of a job: prepare its inputs, run the trainer, record its events and files, and write how it ended."""

from collections.abc import Sequence

import structlog
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from frs import events
from frs.errors import FrsError, StorageFull
from frs.events import Artifact, Checkpoint, Event, Log, Outcome, Phase
from store.artifacts.local_files import Abandoned
from store.db import tables
from store.db.database import Database
from store.db.tables import Job
from store.errors import LeaseLost
from store.jobs import lifecycle
from store.jobs.checkpoints import newest_checkpoints
from store.jobs.lease import Lease, requested_action
from store.jobs.recording import keys_in_use
from store.settings import Settings
from store.states import EndReason, JobStatus
from store.sweeps.advance import advance_sweep_of
from worker.attempt import finalizer, work_folder
from worker.attempt.finalizer import Finalizer
from worker.attempt.recorder import FLUSH_SECONDS, AttemptRecorder
from worker.attempt.trainer_run import Interruption, TrainerRun
from worker.process.oom_kills import oom_kill_count
from worker.process.output import escape_control
from worker.process.pipes import Line
from worker.process.trainer import COMMAND, TrainerState
from worker.tracking.job_tracking import JobTracking, open_trackers
from worker.tracking.tracked_run import read_run
from worker.tracking.tracker import RunEnd

_log = structlog.get_logger()


class Supervisor(TrainerRun):
    """Runs one attempt of a job and is its only writer. Failures of the attempt are written to the job's row."""

    def __init__(
        self,
        database: Database,
        settings: Settings,
        lease: Lease,
        command: Sequence[str] = COMMAND,
        gpus: Sequence[str] | None = None,
    ) -> None:
        """`gpus` are the trainer's; None means that this host has none."""
        folder = settings.work_root / lease.job_id / str(lease.attempt)
        super().__init__(
            database,
            settings,
            folder,
            [*command, "train", "--spec", str(folder / work_folder.SPEC), "--workdir", str(folder)],
            gpus,
            stall_timeout_seconds=settings.stall_timeout_seconds,
            grace_seconds=settings.grace_seconds,
            log_fields=lease.log_fields(),
            network=lease.nodes > 1,
        )
        self.lease = lease
        self.tracking = JobTracking(open_trackers(settings), self.artifacts.open)
        self.recorder = AttemptRecorder(self.database, self.artifacts, lease, folder, self.tracking)
        self.phase = "starting"
        """The trainer's last phase event."""
        self._oom_kills = oom_kill_count()

    def _run(self) -> None:
        _log.info("The attempt has started.")
        run_end: RunEnd | None = None
        try:
            run_end = self._run_to_end()
            _log.info("The attempt has ended.", status=run_end.status)
            self._advance_sweep()
        finally:
            self.tracking.end(run_end)

    def _run_to_end(self) -> RunEnd:
        finalize = self._run_trainer()
        self._wait_for_trackers()
        try:
            return self._write_end(lambda session: self._finalize(session, finalize))
        finally:  # the success may have been committed though its answer was lost
            self._delete_training_checkpoints()

    def _finalize(self, session: Session, finalize: Finalizer) -> RunEnd:
        status = finalize(session, self.lease)
        return RunEnd(status, session.get_one(Job, self.lease.job_id).end_reason)

    def _renew_lease(self, session: Session) -> Interruption:
        renewal = lifecycle.renew(session, self.lease, self.settings.lease_seconds)
        return Interruption[renewal.requested_action.name]

    def _query_request(self, session: Session) -> Interruption:
        requests = (Job.cancel_requested_at, Job.pause_requested_at, Job.stop_requested_at)
        columns = select(Job.status, Job.attempt, *requests).where(Job.id == self.lease.job_id)
        row = session.execute(columns).one_or_none()
        if row is None or (row.status, row.attempt) != (JobStatus.RUNNING, self.lease.attempt):
            raise LeaseLost(f"Attempt {self.lease.attempt} no longer holds job {self.lease.job_id}.")
        return Interruption[requested_action(row).name]

    def _return_to_queue(self, session: Session) -> JobStatus:
        return self._after_fence()(session, self.lease)

    def _after_fence(self) -> Finalizer:
        seconds = self.settings.fence_seconds
        cause = f"the worker could not renew its lease for {seconds:g} s and ended the trainer"
        message = f"Attempt {self.lease.attempt}: {cause}."
        return finalizer.requeued(message, attempt_counts=False)

    def _run_trainer(self) -> Finalizer:
        """Run the trainer and return how the attempt ends. Raises LeaseLost."""
        try:
            self._prepare()
            self._start_trackers()
            self.trainer.start()
            self._record_lines()
            return self._choose_finalizer()
        except Abandoned:
            is_cancelled = self.interruption is Interruption.CANCEL
            return finalizer.cancelled() if is_cancelled else finalizer.requeued(attempt_counts=False)
        except LeaseLost:
            raise
        except StorageFull as error:
            return finalizer.waiting_for_storage(error.message)
        except FrsError as error:
            return finalizer.failed_by(error)
        except OSError as error:
            _log.warning("A file could not be read or written.", error=str(error))
            if error.errno not in finalizer.STORAGE_ERRNOS:
                return finalizer.requeued(attempt_counts=True)
            return finalizer.waiting_for_storage(finalizer.storage_message(error))
        except Exception as error:
            _log.exception("The supervisor failed.")
            return finalizer.failed(EndReason.INTERNAL_ERROR, f"The supervisor failed: {type(error).__name__}.")

    def _prepare(self) -> None:
        self._prepare_spec(lambda session: session.get_one(Job, self.lease.job_id))
        checkpoints, keys = self.database.read(self._query_files)
        if self._is_abandoned():  # an attempt without the lease might delete the artifacts of its successor
            raise Abandoned
        self.artifacts.keep_only(self.lease.job_id, keys)  # earlier attempts can no longer add rows
        work_folder.fetch_checkpoints(self.folder, checkpoints, self.artifacts, self._is_abandoned)

    def _start_trackers(self) -> None:
        if self.tracking.is_used:
            self.tracking.start(self.database.read(lambda session: read_run(session, self.lease)))

    def _wait_for_trackers(self) -> None:
        """Wait for the trackers unless the job has to end at once, and log what they lack."""
        if self.interruption < Interruption.RELEASE:
            self.tracking.wait()
            self.recorder.add(*self.tracking.take_warnings())
            self.recorder.flush()

    def _delete_training_checkpoints(self) -> None:
        """Delete the files of a job's training checkpoints if it has succeeded. Best effort; the job has ended."""
        try:
            if (keys := self.database.read(self._query_keys_after_success)) is not None:
                self.artifacts.keep_only(self.lease.job_id, keys)
        except (OSError, SQLAlchemyError) as error:
            _log.warning("Training checkpoints could not be deleted.", error=type(error).__name__)

    def _advance_sweep(self) -> None:
        """Post the next jobs of the sweep that the job belongs to, if any. Best effort: otherwise the reaper does."""
        try:
            advance_sweep_of(self._sessions, self.settings, self.lease.job_id)
        except Exception as error:  # the job has ended
            _log.warning("The sweep of the job could not be advanced.", error=type(error).__name__)

    def _query_keys_after_success(self, session: Session) -> set[str] | None:
        job = session.get(Job, self.lease.job_id)
        return keys_in_use(session, job.id) if job is not None and job.status is JobStatus.SUCCEEDED else None

    def _query_files(self, session: Session) -> tuple[list[tables.Checkpoint], set[str]]:
        return newest_checkpoints(session, self.lease.job_id), keys_in_use(session, self.lease.job_id)

    def _record_lines(self) -> None:
        """Record the trainer's lines until it is dead. Once the lease is lost or the job is cancelled, discard them."""
        for line in self.trainer.lines(FLUSH_SECONDS):
            if self._discards_lines:
                continue
            self.recorder.add(*self.tracking.take_warnings())
            if line is None:
                self.recorder.flush()
            else:
                self._record_line(line)
        if not self._discards_lines:
            self.recorder.add(*self.output.flush())
            self.recorder.flush()

    @property
    def _discards_lines(self) -> bool:
        return self.interruption >= Interruption.CANCEL

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
        if self.interruption is Interruption.CANCEL:
            return finalizer.cancelled()
        if self.outcome and self.outcome.status == "succeeded" and self.recorder.rejection:
            return finalizer.failed_with(EndReason.INTERNAL_ERROR, self.recorder.rejection)
        if self.outcome is None and self.trainer.state is TrainerState.STALLED:
            return finalizer.stalled(self._stall_timeout, self.phase, self.output.tail)
        if self.outcome is None and self.interruption >= Interruption.RELEASE:
            return finalizer.requeued(attempt_counts=False)  # SIGTERM kills a trainer that has no handler for it yet
        if self.outcome is None and self.trainer.state is TrainerState.KILLED:
            return self._after_fence()
        killed_for_memory = oom_kill_count() > self._oom_kills
        return finalizer.finalizer_for(self.outcome, self.trainer.exit_code, self.output.tail, killed_for_memory)


def _parse_event(line: bytes) -> Event:
    try:
        return events.parse(line)
    except ValueError:
        start = line[:200].decode(errors="replace")
        return Log(level="warning", message=f"The trainer sent a line of {len(line)} bytes that is no event: {start}")
