"""Setup steps with a code and a result. A job stops at the first failure; a plan runs all steps."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from frs.errors import FrsError

Level = Literal["error", "warning", "info"]


class StepResult(NamedTuple):
    """The result of a step that did not fail."""

    message: str
    warning: bool = False


@dataclass(frozen=True)
class SetupStep:
    """A step that builds, checks or measures one thing."""

    code: str
    """Code of the step's check. A failed check has the error's code instead."""
    run: Callable[[], StepResult]
    """Run the step. Raises FrsError if the check fails."""
    needs: tuple[str, ...] = ()
    """Attributes of the setup that earlier steps must have set."""


class Check(BaseModel):
    """The result of one check."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    code: str
    """Code of the check, or the error code if it failed."""
    level: Level
    """`error`: the job cannot run. `warning`: the job can run, and its report keeps the message. `info`: the check
    passed, or was skipped because an earlier one failed."""
    ok: bool
    """Whether the check passed without a warning."""
    message: str
    """Result of the check."""
    hint: str = ""
    """What to do about an error."""


def run_until_first_error(steps: Iterable[SetupStep]) -> None:
    """Run the steps. Raise the FrsError of the first one that fails."""
    for step in steps:
        step.run()


def run_all(steps: Iterable[SetupStep], setup: Mapping[str, object]) -> list[Check]:
    """Run all steps and return a check for each. A step is skipped if `setup` lacks one of its `needs`.

    `setup` is a live view of the attributes that the steps set.
    """
    return [_run_step(step, all(name in setup for name in step.needs)) for step in steps]


def _run_step(step: SetupStep, possible: bool) -> Check:
    if not possible:
        return Check(code=step.code, level="info", ok=False, message="Skipped because an earlier check failed.")
    try:
        result = step.run()
    except FrsError as error:
        return failed_check(error)
    level: Level = "warning" if result.warning else "info"
    return Check(code=step.code, level=level, ok=not result.warning, message=result.message)


def failed_check(error: FrsError) -> Check:
    """Return the check of a step that raised `error`."""
    return Check(code=error.code, level="error", ok=False, message=error.message, hint=error.hint)
