"""One real training step before the first: does a gradient arrive, does the batch fit, how long does it take?

It leaves no trace: a run with the probe equals one without, tensor by tensor.
"""

import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from frs.distillation.diagnosis import gradient_norms
from frs.distillation.distiller import Distiller
from frs.errors import BatchTooLarge, NoGradient
from frs.training import memory
from frs.training.preserve_state import preserve_state
from frs.training.process_group import all_reduce_max, world_size

Batch = dict[str, Any]
T = TypeVar("T")
Precision = Callable[[], AbstractContextManager[object]]
REPEATS_END_AFTER = 5.0
"""Seconds in which steps are repeated for their median."""


@dataclass(frozen=True)
class Probe:
    seconds: float
    """A step without the reading of its images: forward and backward pass of the student, forward pass of the teacher."""
    peak_bytes: int
    """With the optimizer's state: on a GPU of tensors, else of the whole process."""
    gradients: dict[str, float]
    """Norm of the gradient from the task and from each term."""


@dataclass(frozen=True)
class ProbeConfig:
    """How a probe is setup."""

    precision: Precision
    """The context that training's forward passes run in."""
    states: int
    """Tensors that the optimizer keeps for each parameter."""
    repeats: int
    """Steps to time, the first ones left out where there are more than one."""
    estimate_memory: bool
    """Whether the CPU's memory is foreseen from batches of one and two images."""


def probe(model: nn.Module, batch: Batch, trial: ProbeConfig) -> Probe:
    """Takes steps on a raw batch as the data loader gives it. Raises BatchTooLarge.

    Its images are as large as that batch's: with `train_sizes`, another batch may need more.
    """
    device = next(model.parameters()).device
    state_bytes = trial.states * sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    with preserve_state(model):
        model.train()
        if device.type == "cuda":
            return _on_gpu(model, batch, trial, device, state_bytes)
        size = len(batch["inputs"])
        if trial.estimate_memory and size > 2:
            peaks = [memory.peak_bytes(partial(step, model, part(batch, n), trial.precision), device) for n in (1, 2)]
            check_memory(size, peaks[0] + state_bytes, peaks[1] - peaks[0], _available())
        return _measured(model, batch, trial, device, state_bytes)


def _available() -> int | None:
    """This process's part of what is free."""
    free = memory.available_bytes()
    return None if free is None else free // world_size()


def check_gradients(found: Probe) -> None:
    """Raises NoGradient naming the term."""
    silent = [name for name, norm in found.gradients.items() if norm == 0]
    if silent:
        raise NoGradient(f"No gradient reaches the student from: {', '.join(silent)}.")


def check_memory(batch_size: int, one: int, each: int, available: int | None) -> None:
    """`one`: bytes the process holds at the peak of a step on one image; `each`: more for every further image.

    Raises BatchTooLarge.
    """
    if available is None:
        return
    limit = memory.resident_bytes() + available
    needed = one + max(0, each) * (batch_size - 1)
    if needed > limit:
        fitting = 1 + (limit - one) // each if each > 0 and one <= limit else 0
        raise _too_large(batch_size, fitting, f"; it needs about {needed / 2**30:.1f} GiB of {limit / 2**30:.1f}")


def largest_fitting(fits: Callable[[int], bool], too_large: int) -> int:
    """The largest batch below `too_large` that fits; 0 where not even one image does."""
    low, high = 0, too_large
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def step(model: nn.Module, batch: Batch, precision: Precision) -> tuple[float, dict[str, float]]:
    """Seconds of a forward and a backward pass, and the gradient norms, which are not part of that time.

    Norms are those at the student's pyramid; of a student alone, those of its parameters.
    """
    device = next(model.parameters()).device
    started = _now(device)
    with precision():
        outputs = model.forward_both(batch) if isinstance(model, Distiller) else None
        student: Any = model.student if isinstance(model, Distiller) else model
        losses = outputs.losses if outputs else _losses(student, batch)
    task, _ = student.parse_losses(losses)
    seconds = _now(device) - started
    norms = {name: float(norm) for name, norm in gradient_norms(outputs, task).items()} if outputs else {}
    started = _now(device)
    torch.stack([task, *(outputs.terms.values() if outputs else ())]).sum().backward()
    seconds += _now(device) - started
    norms = norms or {"task": _norm(parameter.grad for parameter in model.parameters())}
    model.zero_grad(set_to_none=True)
    return seconds, norms


def part(batch: Batch, images: int) -> Batch:
    """The first so many images of a raw batch."""
    return {name: part(held, images) if isinstance(held, dict) else held[:images] for name, held in batch.items()}


def _measured(model: nn.Module, batch: Batch, trial: ProbeConfig, device: torch.device, state_bytes: int) -> Probe:
    taken: list[tuple[float, dict[str, float]]] = []
    peak = memory.peak_bytes(lambda: taken.append(step(model, batch, trial.precision)), device)
    started = time.monotonic()
    while len(taken) < trial.repeats and time.monotonic() - started < REPEATS_END_AFTER:
        taken.append(step(model, batch, trial.precision))
    timed = [seconds for seconds, _ in taken[1:] or taken]
    return Probe(median(timed), peak + state_bytes, taken[0][1])


def _on_gpu(model: nn.Module, batch: Batch, trial: ProbeConfig, device: torch.device, state_bytes: int) -> Probe:
    ballast = torch.empty(state_bytes, dtype=torch.uint8, device=device)  # where the optimizer's state will be

    def fits(images: int) -> bool:
        model.zero_grad(set_to_none=True)
        torch.cuda.empty_cache()
        return _tried(partial(step, model, part(batch, images), trial.precision)) is not None

    found = _tried(lambda: _measured(model, batch, trial, device, 0))
    [failed] = all_reduce_max(found is None)
    if failed and world_size() > 1:  # looking for one that fits would have to go in step
        raise BatchTooLarge(f"batch_size {len(batch['inputs']) * world_size()} does not fit {world_size()} devices.")
    if found is None:
        size = len(batch["inputs"])
        fitting = largest_fitting(fits, size)
        torch.cuda.empty_cache()
        raise _too_large(size, fitting)
    del ballast
    return found


def _tried(work: Callable[[], T]) -> T | None:
    """None where the GPU's memory did not suffice; the tensors of the attempt are gone by then."""
    try:
        return work()
    except torch.OutOfMemoryError:
        return None


def _too_large(batch_size: int, fitting: int, why: str = "") -> BatchTooLarge:
    batch_size, fitting = batch_size * world_size(), fitting * world_size()
    if fitting:
        return BatchTooLarge(f"batch_size {batch_size} does not fit{why}; {fitting} does.")
    return BatchTooLarge(
        f"batch_size {batch_size} does not fit{why}; nor does {world_size()}.", "Lower `schedule.image_size`."
    )


def _losses(student: Any, batch: Batch) -> Any:
    return student(**student.data_preprocessor(batch, True), mode="loss")


def _norm(gradients: Iterable[Tensor | None]) -> float:
    return float(sum(g.float().square().sum() for g in gradients if g is not None) ** 0.5)


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
