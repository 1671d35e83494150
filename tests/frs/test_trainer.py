"""Every end of a run has one outcome event and an exit code."""

import errno
from pathlib import Path

import pytest
import torch
from tiny import job, of

from frs import events
from frs.engine import stages, trainer
from frs.errors import BadDataset
from frs.resolved import resolve
from frs.spec import JobSpec
from frs.training.stop_request import Interrupted


def outcome_of(
    error: Exception, monkeypatch: pytest.MonkeyPatch, data: Path, models: Path
) -> tuple[int, events.Outcome]:
    def run(*_: object) -> str:
        raise error

    emitted: list[events.Event] = []
    monkeypatch.setattr(stages, "run", run)
    code = trainer.run(resolve(JobSpec.model_validate(job()), data, models), data, emitted.append)
    [outcome] = of(events.Outcome, emitted)
    return code, outcome


@pytest.mark.parametrize(
    ("error", "code", "end_reason"),
    [
        (BadDataset("x"), "bad_dataset", "bad_dataset"),
        (MemoryError(), "out_of_memory", "out_of_memory"),
        (torch.OutOfMemoryError("CUDA out of memory"), "out_of_memory", "out_of_memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "out_of_memory", "out_of_memory"),
        (OSError(errno.ENOSPC, "No space left on device"), "storage_full", "internal_error"),
        (ValueError("surprise"), "internal_error", "internal_error"),
    ],
)
def test_a_failure_has_a_code_and_a_hint(
    error: Exception, code: str, end_reason: str, monkeypatch: pytest.MonkeyPatch, data: Path, models: Path
) -> None:
    exit_code, outcome = outcome_of(error, monkeypatch, data, models)
    assert (exit_code, outcome.status, outcome.end_reason) == (1, "failed", end_reason)
    assert outcome.error is not None and outcome.error.code == code and outcome.error.hint


def test_an_interruption_exits_with_75(monkeypatch: pytest.MonkeyPatch, data: Path, models: Path) -> None:
    exit_code, outcome = outcome_of(Interrupted(), monkeypatch, data, models)
    assert (exit_code, outcome.status, outcome.error) == (75, "interrupted", None)
