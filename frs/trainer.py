"""The trainer process: runs the engine and turns however it ends into one outcome line and an exit code."""

import logging
import traceback
import warnings
from pathlib import Path

import torch
from mmengine.logging import MMLogger

from frs import engine, events
from frs.errors import FrsError, OutOfMemory
from frs.resolved import ResolvedSpec
from frs.stopping import Interrupted, StopRequest

TRY_AGAIN = 75
"""Exit code of a run that was asked to stop and left a checkpoint (EX_TEMPFAIL)."""


def run(spec: ResolvedSpec, workdir: Path, emit: events.Emit) -> int:
    """Exit code 0 after success, `TRY_AGAIN` after an interruption, 1 after a failure."""
    quiet()
    stop = StopRequest(spec.job.resources.max_minutes).on_signals()
    try:
        reason = engine.run(spec, workdir, emit, stop)
    except Interrupted:
        emit(events.Outcome(status="interrupted"))
        return TRY_AGAIN
    except (torch.OutOfMemoryError, MemoryError) as error:
        return _fail(emit, OutOfMemory(str(error).splitlines()[0] if str(error) else "Memory ran out."))
    except FrsError as error:
        return _fail(emit, error)
    except Exception as error:
        traceback.print_exc()
        return _fail(emit, FrsError(f"{type(error).__name__}: {error}", "See the job's log."))
    emit(events.Outcome(status="succeeded", end_reason=reason))
    return 0


def _fail(emit: events.Emit, error: FrsError) -> int:
    problem = events.Problem(code=error.code, message=error.message[:4000], hint=error.hint)
    emit(events.Outcome(status="failed", end_reason=error.end_reason, error=problem))
    return 1


def quiet() -> None:
    """mmengine and torch tell of things that are as intended here."""
    warnings.filterwarnings("ignore")
    MMLogger.get_instance("frs", log_level="ERROR").setLevel(logging.ERROR)
