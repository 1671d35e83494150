"""fp32, bf16 and fp16: mmengine's mixed-precision wrapper asserts a GPU, ours also runs bf16 on the CPU."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from mmengine.optim import OptimWrapper
from torch import Tensor, nn

from frs.errors import PrecisionUnsupported
from frs.spec import Precision
from frs.training.process_group import average_gradients

Chosen = Literal["fp32", "bf16", "fp16"]
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def choose(precision: Precision, device: torch.device) -> Chosen:
    """`auto` = bf16 on a GPU that has it, else fp32. Raises PrecisionUnsupported for fp16 without a GPU."""
    if precision == "auto":
        return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if precision == "fp16" and device.type != "cuda":
        raise PrecisionUnsupported("Precision fp16 needs a GPU.")
    return precision


def autocast(precision: Chosen, device_type: str) -> torch.autocast:
    """The context that forward passes run in."""
    return torch.autocast(device_type, dtype=_DTYPES.get(precision), enabled=precision in _DTYPES)


class AutocastOptimWrapper(OptimWrapper):
    """mmengine's OptimWrapper with the forward pass under autocast, loss scaling for fp16, and gradients averaged over
    processes before they are clipped.
    """

    def __init__(self, precision: Chosen, device_type: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.device_type = device_type
        self.precision = precision
        self.scaler = torch.amp.GradScaler(device_type, enabled=precision == "fp16")

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        with super().optim_context(model), autocast(self.precision, self.device_type):
            yield

    def backward(self, loss: Tensor, **kwargs: Any) -> None:
        self.scaler.scale(loss).backward(**kwargs)
        average_gradients(p for group in self.optimizer.param_groups for p in group["params"])
        self._inner_count += 1

    def step(self, **kwargs: Any) -> None:
        if self.clip_grad_kwargs:
            self.scaler.unscale_(self.optimizer)
            self._clip_grad()
        self.scaler.step(self.optimizer, **kwargs)
        self.scaler.update()

    def state_dict(self) -> dict[str, Any]:
        return {"optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state_dict["optimizer"])
        if state_dict["scaler"]:
            self.scaler.load_state_dict(state_dict["scaler"])
