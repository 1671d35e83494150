"""The trainer process: run the engine and turn its end into one outcome event and an exit code."""

import errno
import traceback
import warnings
from pathlib import Path

import torch

from frs import events
from frs.engine import stages
from frs.errors import FrsError, OutOfMemory, StorageFull
from frs.resolved import ResolvedSpec
from frs.training import process_group
from frs.training.stop_request import Interrupted, StopRequest

EXIT_INTERRUPTED = 75
"""Exit code of a run that was interrupted and left a checkpoint (EX_TEMPFAIL)."""


def run(spec: ResolvedSpec, workdir: Path, emit: events.Emit) -> int:
    """Run `spec` and return the exit code.

    The exit code is 0 after success, `EXIT_INTERRUPTED` after an interruption and 1 after a failure.

    If another process of the job was lost, the exception propagates and no outcome is emitted: the lost process reports
    the reason.
    """
    silence_libraries()
    stop = StopRequest(workdir).on_signals()
    try:
        reason = stages.run(spec, workdir, emit, stop)
    except Interrupted:
        emit(events.Outcome(status="interrupted"))
        return EXIT_INTERRUPTED
    except Exception as error:
        if process_group.is_peer_lost(error):
            raise
        return report_failure(emit, to_frs_error(error))
    emit(events.Outcome(status="succeeded", end_reason=reason))
    return 0


def report_failure(emit: events.Emit, error: FrsError) -> int:
    """Emit a failed outcome and return exit code 1."""
    emit(failure(error))
    return 1


def failure(error: FrsError) -> events.Outcome:
    """Return the outcome of a run that failed with the error."""
    error_info = events.ErrorInfo(code=error.code, message=error.message[:4000], hint=error.hint)
    return events.Outcome(status="failed", end_reason=error.end_reason, error=error_info)


def silence_libraries() -> None:
    """Suppress warnings of mmengine and torch about states that are intended here."""
    warnings.filterwarnings("ignore")


def to_frs_error(error: Exception) -> FrsError:
    """Return the exception as an FrsError. Print the traceback of an unexpected one to the log."""
    message = str(error).splitlines()[0] if str(error) else type(error).__name__
    match error:
        case FrsError() if error.message.startswith("Caught "):
            return _from_loader_error(error)
        case FrsError():
            return error
        case torch.OutOfMemoryError() | MemoryError():
            return OutOfMemory(message)
        case RuntimeError() if "DefaultCPUAllocator" in message:
            return OutOfMemory(message)
        case OSError(errno=errno.ENOSPC | errno.EDQUOT):
            return StorageFull(f"The trainer could not write a file: {error.strerror}.")
    traceback.print_exception(error)
    return FrsError(f"{type(error).__name__}: {message}", "See the job's log.")


def _from_loader_error(error: FrsError) -> FrsError:
    """Restore an error of a data-loader process, which torch re-raises with that process's traceback as message."""
    last = error.message.strip().splitlines()[-1].partition(": ")[2]
    return type(error)(last.removesuffix(error.hint_by_default).strip())
