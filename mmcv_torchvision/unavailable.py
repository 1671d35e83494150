"""What stands in for an operator that torchvision does not have."""

from collections.abc import Callable
from typing import Any, NoReturn

NOT_IN_TORCHVISION = "torchvision has nothing to make it of"


class OperatorUnavailable(NotImplementedError):
    """Raised when such an operator is called, never when it is imported."""

    code = "operator_unavailable"

    def __init__(self, operator: str, reason: str = NOT_IN_TORCHVISION) -> None:
        self.operator = operator
        self.hint = (
            "Install mmcv with its compiled operators (needs a compiler, tens of minutes): "
            "pip install --no-build-isolation --no-cache-dir --no-deps --force-reinstall onedl-mmcv"
        )
        super().__init__(f"mmcv's operator {operator} is not available: {reason}. {self.hint}")


def unavailable(operator: str, reason: str = NOT_IN_TORCHVISION) -> Callable[..., NoReturn]:
    """A function of that name which raises `OperatorUnavailable` whatever it is called with."""

    def operator_unavailable(*args: Any, **kwargs: Any) -> NoReturn:
        raise OperatorUnavailable(operator, reason)

    operator_unavailable.__name__ = operator_unavailable.__qualname__ = operator
    return operator_unavailable
