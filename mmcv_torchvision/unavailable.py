"""Stubs of operators that torchvision does not have."""

from collections.abc import Callable
from typing import Any, NoReturn

NOT_IN_TORCHVISION = "torchvision has no equivalent"
"""Reason why most operators are unavailable."""


class OperatorUnavailable(NotImplementedError):
    """The operator that was called is not available; importing it does not raise."""

    code = "operator_unavailable"

    def __init__(self, operator: str, reason: str = NOT_IN_TORCHVISION) -> None:
        self.operator = operator
        self.hint = (
            "Install mmcv with its compiled operators (needs a compiler, tens of minutes): "
            "pip install --no-build-isolation --no-cache-dir --no-deps --force-reinstall onedl-mmcv"
        )
        super().__init__(f"mmcv's operator {operator} is not available: {reason}. {self.hint}")


def make_stub(operator: str, reason: str = NOT_IN_TORCHVISION) -> Callable[..., NoReturn]:
    """Return a function named `operator` that raises OperatorUnavailable for any arguments."""

    def operator_unavailable(*args: Any, **kwargs: Any) -> NoReturn:
        raise OperatorUnavailable(operator, reason)

    operator_unavailable.__name__ = operator_unavailable.__qualname__ = operator
    return operator_unavailable
