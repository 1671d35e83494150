"""Setup steps with a check of each. A job stops at the first failure; a plan runs every step that it can."""

from collections.abc import Callable
from typing import Generic, Literal, NamedTuple, ParamSpec, TypeVar, cast

from pydantic import BaseModel, ConfigDict

from frs.errors import FrsError

Level = Literal["error", "warning", "info"]
Parameters = ParamSpec("Parameters")
T = TypeVar("T")


class StepResult(NamedTuple, Generic[T]):
    """The result of a step that did not fail."""

    value: T
    message: str
    warning: bool = False


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


class _Missing:
    def __bool__(self) -> bool:
        return False


MISSING = _Missing()
"""Result of a step that failed or was skipped; false, and never an argument of a step."""


class StepRunner:
    """Run setup steps and collect a check of each."""

    def __init__(self, stop_at_first_error: bool) -> None:
        self.stop_at_first_error = stop_at_first_error
        self.checks: list[Check] = []

    def run(
        self,
        code: str,
        step: Callable[Parameters, StepResult[T]],
        *arguments: Parameters.args,
        **options: Parameters.kwargs,
    ) -> T:
        """Run a step and return its value; `code` is that of its check, unless it fails.

        After a failure, raise the step's FrsError, or continue: return MISSING. A step with an argument MISSING is
        skipped and returns MISSING, too.
        """
        if any(argument is MISSING for argument in arguments):
            message = "Skipped because an earlier check failed."
            self.checks.append(Check(code=code, level="info", ok=False, message=message))
            return cast(T, MISSING)
        try:
            result = step(*arguments, **options)
        except FrsError as error:
            if self.stop_at_first_error:
                raise
            self.checks.append(failed_check(error))
            return cast(T, MISSING)
        level: Level = "warning" if result.warning else "info"
        self.checks.append(Check(code=code, level=level, ok=not result.warning, message=result.message))
        return result.value


def failed_check(error: FrsError) -> Check:
    """Return the check of a step that raised `error`."""
    return Check(code=error.code, level="error", ok=False, message=error.message, hint=error.hint)
