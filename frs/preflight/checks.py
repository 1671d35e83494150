"""What must hold before the first epoch, as a list of named steps: a job stops at the first that fails, a plan runs all."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from frs.errors import FrsError

Level = Literal["error", "warning", "info"]


class StepResult(NamedTuple):
    """What a step that did not fail has to say."""

    message: str
    warning: bool = False


@dataclass(frozen=True)
class SetupStep:
    """One thing to make or to measure; it raises FrsError where that does not hold."""

    code: str
    """Names the step where it holds; where it does not, the error's own code does."""
    run: Callable[[], StepResult]
    needs: tuple[str, ...] = ()
    """What steps before it must have setup."""


class Check(BaseModel):
    model_config = ConfigDict(frozen=True)

    code: str
    level: Level
    """`error` prevents the job, `warning` is kept in its report, `info` is neither, also where it could not be looked at."""
    ok: bool
    message: str
    hint: str = ""


def run_until_first_error(steps: Iterable[SetupStep]) -> None:
    """Raises the FrsError of the first step that fails."""
    for step in steps:
        step.run()


def run_all(steps: Iterable[SetupStep], setup: Mapping[str, object]) -> list[Check]:
    """One result for each step; one that lacks what it needs in `setup`, which the steps themselves fill, is passed over."""
    return [_result(step, all(name in setup for name in step.needs)) for step in steps]


def _result(step: SetupStep, possible: bool) -> Check:
    if not possible:
        return Check(code=step.code, level="info", ok=False, message="Not looked at, because of what failed before.")
    try:
        found = step.run()
    except FrsError as error:
        return failed_check(error)
    return Check(
        code=step.code, level="warning" if found.warning else "info", ok=not found.warning, message=found.message
    )


def failed_check(error: FrsError) -> Check:
    return Check(code=error.code, level="error", ok=False, message=error.message, hint=error.hint)
