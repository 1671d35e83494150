"""fp32, bf16 and fp16 training.

mmengine's mixed-precision wrapper requires a GPU; this one also runs bf16 on the CPU.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from mmengine.optim import OptimWrapper
from torch import Tensor, nn

from frs.errors import PrecisionUnsupported
from frs.schedule_spec import Precision
from frs.training.process_group import average_gradients

ResolvedPrecision = Literal["fp32", "bf16", "fp16"]
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def choose_precision(precision: Precision, device: torch.device) -> ResolvedPrecision:
    """Return the precision to train in: `auto` is bf16 on a GPU that supports it, else fp32.

    Raises PrecisionUnsupported for fp16 without a GPU.
    """
    if precision == "auto":
        return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if precision == "fp16" and device.type != "cuda":
        raise PrecisionUnsupported("`schedule.precision: fp16` requires a GPU.")
    return precision


def autocast(precision: ResolvedPrecision, device_type: str) -> torch.autocast:
    """Return the context for forward passes; it has no effect in fp32."""
    return torch.autocast(device_type, dtype=_DTYPES.get(precision), enabled=precision in _DTYPES)


class AutocastOptimWrapper(OptimWrapper):
    """mmengine's OptimWrapper with autocast for the forward pass and loss scaling for fp16.

    Once a step, gradients are averaged over processes and then clipped.
    """

    def __init__(self, precision: ResolvedPrecision, device_type: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.device_type = device_type
        self.precision = precision
        self.scaler = torch.amp.GradScaler(device_type, enabled=precision == "fp16")

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Run the forward pass under autocast."""
        with super().optim_context(model), autocast(self.precision, self.device_type):
            yield

    def backward(self, loss: Tensor, **kwargs: Any) -> None:
        """Add the gradients of the scaled loss."""
        self.scaler.scale(loss).backward(**kwargs)
        self._inner_count += 1

    def step(self, **kwargs: Any) -> None:
        """Average the gradients over processes, clip them if configured, and update the parameters."""
        average_gradients(p for group in self.optimizer.param_groups for p in group["params"])
        if self.clip_grad_kwargs:
            self.scaler.unscale_(self.optimizer)
            self._clip_grad()
        self.scaler.step(self.optimizer, **kwargs)
        self.scaler.update()

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the optimizer and of the loss scaler."""
        return {"optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict()` returned. The scaler's state is empty unless the precision is fp16."""
        self.optimizer.load_state_dict(state_dict["optimizer"])
        if state_dict["scaler"]:
            self.scaler.load_state_dict(state_dict["scaler"])
