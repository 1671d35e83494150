"""The result of one check of a host: `frs doctor`, `python -m worker.doctor`, `python -m frs doctor`."""

from collections.abc import Callable, Iterable
from typing import Literal

from pydantic import BaseModel, ConfigDict
from rich.text import Text

from frs.errors import FrsError

_SIGNS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "error": ("✗", "red")}


class HostCheck(BaseModel):
    """What a check found, and the next step if something has to be done."""

    model_config = ConfigDict(frozen=True)

    name: str
    status: Literal["ok", "warning", "error"]
    message: str
    hint: str | None = None


def ok(name: str, message: str) -> HostCheck:
    """Return a check that found nothing to do."""
    return HostCheck(name=name, status="ok", message=message)


def warning(name: str, message: str, hint: str) -> HostCheck:
    """Return a check that found something that limits the service."""
    return HostCheck(name=name, status="warning", message=message, hint=hint)


def error(name: str, message: str, hint: str) -> HostCheck:
    """Return a check that found something that prevents the service from working."""
    return HostCheck(name=name, status="error", message=message, hint=hint)


def run(name: str, check: Callable[[], Iterable[HostCheck]], hint: str) -> list[HostCheck]:
    """Return the results of `check`; an exception is an error with `hint`, unless it has its own."""
    try:
        return list(check())
    except FrsError as failure:
        return [error(name, failure.message, failure.hint or hint)]
    except Exception as failure:  # a broken installation may raise anything
        first_line = str(failure).strip().split("\n")[0][:500]
        return [error(name, f"{type(failure).__name__}: {first_line}", hint)]


def render(check: HostCheck) -> Text:
    """Return the check as lines for the terminal: its result, and the next step if there is one."""
    sign, style = _SIGNS[check.status]
    text = Text.assemble((f"{sign} ", style), f"{check.name}: {check.message}")
    return text.append(f"\n  {check.hint}") if check.hint else text
