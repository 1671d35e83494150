"""The trainer process: runs the engine and turns however it ends into one outcome line and an exit code."""

import errno
import logging
import traceback
import warnings
from pathlib import Path

import torch
from mmengine.logging import MMLogger

from frs import events
from frs.engine import stages
from frs.errors import FrsError, OutOfMemory, StorageFull
from frs.resolved import ResolvedSpec
from frs.training import process_group
from frs.training.stop_request import Interrupted, StopRequest

EXIT_INTERRUPTED = 75
"""Exit code of a run that was asked to stop and left a checkpoint (EX_TEMPFAIL)."""


def run(spec: ResolvedSpec, workdir: Path, emit: events.Emit) -> int:
    """Exit code 0 after success, `EXIT_INTERRUPTED` after an interruption, 1 after a failure.

    Where another of the job's processes has gone, that error is raised and no outcome told: why is for that one to say.
    """
    silence_libraries()
    stop = StopRequest(spec.job.resources.max_minutes, workdir).on_signals()
    try:
        reason = stages.run(spec, workdir, emit, stop)
    except Interrupted:
        emit(events.Outcome(status="interrupted"))
        return EXIT_INTERRUPTED
    except Exception as error:
        if process_group.is_peer_lost(error):
            raise
        return report_failure(emit, _to_frs_error(error))
    emit(events.Outcome(status="succeeded", end_reason=reason))
    return 0


def _to_frs_error(error: Exception) -> FrsError:
    """The error in words a user can act on; one that nobody expected also leaves its traceback in the log."""
    said = str(error).splitlines()[0] if str(error) else type(error).__name__
    match error:
        case FrsError() if error.message.startswith("Caught "):
            return _from_loader_error(error)
        case FrsError():
            return error
        case torch.OutOfMemoryError() | MemoryError():
            return OutOfMemory(said)
        case RuntimeError() if "DefaultCPUAllocator" in said:
            return OutOfMemory(said)
        case OSError(errno=errno.ENOSPC | errno.EDQUOT):
            return StorageFull(f"No space is left: {error.strerror}.")
    traceback.print_exception(error)
    return FrsError(f"{type(error).__name__}: {said}", "See the job's log.")


def _from_loader_error(error: FrsError) -> FrsError:
    """Torch makes an error of a loader's process anew, with that process's traceback as its message."""
    last = error.message.strip().splitlines()[-1].partition(": ")[2]
    return type(error)(last.removesuffix(error.hint_by_default).strip())


def report_failure(emit: events.Emit, error: FrsError) -> int:
    problem = events.ErrorInfo(code=error.code, message=error.message[:4000], hint=error.hint)
    emit(events.Outcome(status="failed", end_reason=error.end_reason, error=problem))
    return 1


def silence_libraries() -> None:
    """Mmengine and torch tell of things that are as intended here."""
    warnings.filterwarnings("ignore")
    MMLogger.get_instance("frs", log_level="ERROR").setLevel(logging.ERROR)
