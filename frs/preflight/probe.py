"""A training step before training: it checks that gradients arrive and that the batch fits, and measures the time.

The probe preserves all state: a run with the probe equals one without it, tensor by tensor.
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
from frs.distillation.distiller import Distiller, student_of
from frs.errors import BatchTooLarge, NoGradient
from frs.schedule_spec import OptimizerName, Schedule
from frs.training import memory
from frs.training.preserve_state import preserve_state
from frs.training.process_group import world_size
from frs.training.schedule import OPTIMIZER_STATE_TENSORS

Batch = dict[str, Any]
T = TypeVar("T")
Precision = Callable[[], AbstractContextManager[object]]
MAX_SECONDS = 5.0
"""Time after which no further step is timed."""


@dataclass(frozen=True)
class Probe:
    """The measurements of a probe."""

    seconds: float
    """Time of a batch in s without reading its images: the student's forward and backward pass and the teacher's
    forward pass."""
    peak_bytes: int
    """Peak memory including what training keeps: of the tensors on a GPU, otherwise of the whole process."""
    gradients: dict[str, float]
    """Norm of the gradient of the task loss and of each term."""
    loading_seconds: float = 0.0
    """Time to read the batch's images in one process, in s; 0 if the probe was given a batch."""


@dataclass(frozen=True)
class ProbeConfig:
    """The settings of a probe."""

    precision: Precision
    """Context of the forward passes."""
    schedule: Schedule
    """The schedule of the training, see `kept_bytes`."""
    optimizer: OptimizerName
    """The optimizer of the training."""
    repeats: int
    """Number of steps. If there are several, the first is not timed."""
    estimate_memory: bool
    """Whether to estimate the memory on the CPU from batches of one and two images before the full batch runs."""


def probe(model: nn.Module, batch: Batch, config: ProbeConfig) -> Probe:
    """Run training steps on a raw batch of the data loader. Raise BatchTooLarge if it does not fit into memory.

    The batch's images have the sizes drawn for them: with `train_sizes`, another batch may need more memory.
    """
    device = next(model.parameters()).device
    state_bytes = kept_bytes(model, config.schedule, config.optimizer)
    with preserve_state(model):
        model.train()
        if device.type == "cuda":
            return probe_gpu(model, batch, config, device, state_bytes)
        size = len(batch["inputs"])
        if config.estimate_memory and size > 2:
            peaks = [
                memory.peak_bytes(partial(run_step, model, first_images(batch, n), config.precision), device)
                for n in (1, 2)
            ]
            check_memory(size, peaks[0] + state_bytes, peaks[1] - peaks[0], _available_bytes())
        return _measure(model, batch, config, device, state_bytes)


def kept_bytes(model: nn.Module, schedule: Schedule, optimizer: OptimizerName) -> int:
    """Return the bytes that training keeps besides `model` and a batch.

    They are the optimizer's state, the gradients of earlier batches of a step, and the student's moving average.
    """
    copies = OPTIMIZER_STATE_TENSORS[optimizer] + (schedule.accumulate > 1)
    averaged = student_of(model).state_dict().values() if schedule.ema else ()
    return copies * _bytes(p for p in model.parameters() if p.requires_grad) + _bytes(averaged)


def check_gradients(result: Probe) -> None:
    """Raise NoGradient naming the terms whose gradient is 0."""
    without_gradient = [name for name, norm in result.gradients.items() if norm == 0]
    if without_gradient:
        raise NoGradient(f"No gradient reaches the student from: {', '.join(without_gradient)}.")


def check_memory(batch_size: int, first: int, each: int, available: int | None) -> None:
    """Raise BatchTooLarge if a step on `batch_size` images needs more memory than there is.

    `first` is the process's peak in bytes in a step on one image, `each` the additional bytes of every further image,
    and `available` the free memory in bytes (None: unknown, nothing is checked).
    """
    if available is None:
        return
    limit = memory.resident_bytes() + available
    required = first + max(0, each) * (batch_size - 1)
    if required > limit:
        fitting = 1 + (limit - first) // each if each > 0 and first <= limit else 0
        reason = f"; it needs about {required / 2**30:.1f} GiB of {limit / 2**30:.1f}"
        raise _batch_too_large(batch_size, fitting, reason)


def largest_fitting(fits: Callable[[int], bool], too_large: int) -> int:
    """Return the largest batch size below `too_large` that fits, by bisection; 0 if not even one image fits."""
    low, high = 0, too_large
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def run_step(model: nn.Module, batch: Batch, precision: Precision) -> tuple[float, dict[str, float]]:
    """Return the seconds of a forward and a backward pass, and the gradient norms, whose computation is not timed.

    The norms are taken at the student's pyramid if the model is a distiller, otherwise over the student's parameters.
    """
    device = next(model.parameters()).device
    started = _now(device)
    with precision():
        outputs = model.forward_both(batch) if isinstance(model, Distiller) else None
        student: Any = student_of(model)
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


def first_images(batch: Batch, images: int) -> Batch:
    """Return the first `images` images of a raw batch."""
    return {
        name: first_images(values, images) if isinstance(values, dict) else values[:images]
        for name, values in batch.items()
    }


def _available_bytes() -> int | None:
    """Return this process's share of the free memory in bytes, or None if it is unknown."""
    free = memory.available_bytes()
    return None if free is None else free // world_size()


def _measure(model: nn.Module, batch: Batch, config: ProbeConfig, device: torch.device, state_bytes: int) -> Probe:
    steps: list[tuple[float, dict[str, float]]] = []
    peak = memory.peak_bytes(lambda: steps.append(run_step(model, batch, config.precision)), device)
    started = time.monotonic()
    while len(steps) < config.repeats and time.monotonic() - started < MAX_SECONDS:
        steps.append(run_step(model, batch, config.precision))
    timed = [seconds for seconds, _ in steps[1:] or steps]
    return Probe(median(timed), peak + state_bytes, steps[0][1])


def probe_gpu(model: nn.Module, batch: Batch, config: ProbeConfig, device: torch.device, state_bytes: int) -> Probe:
    """Measure steps on a GPU, with `state_bytes` of training's later state reserved.

    Raises BatchTooLarge with the size that fits.
    """
    reserved = torch.empty(state_bytes, dtype=torch.uint8, device=device)

    def fits(images: int) -> bool:
        model.zero_grad(set_to_none=True)
        torch.cuda.empty_cache()
        return (
            _none_if_out_of_memory(partial(run_step, model, first_images(batch, images), config.precision)) is not None
        )

    result = _none_if_out_of_memory(lambda: _measure(model, batch, config, device, 0))
    if result is None and world_size() > 1:  # the others wait for this process in a step, and end with it
        raise BatchTooLarge(f"batch_size {len(batch['inputs']) * world_size()} does not fit {world_size()} devices.")
    if result is None:
        size = len(batch["inputs"])
        fitting = largest_fitting(fits, size)
        torch.cuda.empty_cache()
        raise _batch_too_large(size, fitting)
    del reserved
    return result


def _none_if_out_of_memory(work: Callable[[], T]) -> T | None:
    """Return the result of `work`, or None if the GPU ran out of memory; the attempt's tensors are then freed."""
    try:
        return work()
    except torch.OutOfMemoryError:
        return None


def _batch_too_large(batch_size: int, fitting: int, reason: str = "") -> BatchTooLarge:
    batch_size, fitting = batch_size * world_size(), fitting * world_size()
    if fitting:
        return BatchTooLarge(f"batch_size {batch_size} does not fit{reason}; {fitting} does.")
    return BatchTooLarge(
        f"batch_size {batch_size} does not fit{reason}; nor does {world_size()}.", "Lower `schedule.image_size`."
    )


def _losses(student: Any, batch: Batch) -> Any:
    return student(**student.data_preprocessor(batch, True), mode="loss")


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _norm(gradients: Iterable[Tensor | None]) -> float:
    return float(sum(g.float().square().sum() for g in gradients if g is not None) ** 0.5)


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
