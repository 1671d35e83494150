"""Convert an untrusted weights file to a safetensors file of tensors, class names and image size, within limits."""

import json
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import typer
from pydantic import TypeAdapter
from torch import Tensor, nn

from frs import events
from frs.detector_spec import ConfigDetector, DescribedDetector
from frs.detectors import weights
from frs.detectors.checkpoint_layouts import State
from frs.detectors.described_weights import DescribedWeights
from frs.detectors.weights import SavedFile
from frs.errors import FrsError, StorageFull, WeightsNotFound, WeightsRefused, WeightsUnreadable
from frs.isolation import resource_limits

_DESCRIPTION: TypeAdapter[ConfigDetector | DescribedDetector] = TypeAdapter(ConfigDetector | DescribedDetector)
MAX_TENSORS = 20_000
MAX_BYTES = 16 << 30
MAX_CLASSES = 20_000
MAX_NAME = 300
"""Longest name of a tensor or class, in characters."""
_MEMORY, _MEMORY_BASE = 4, 2 << 30
"""Memory limit in bytes: `_MEMORY` x file size + `_MEMORY_BASE`.

The tensors as read, as contiguous copies and as written are in memory at the same time.
"""
_SECONDS, _BYTES_PER_SECOND = 60, 20_000_000
"""CPU time limit in seconds: `_SECONDS` + file size / `_BYTES_PER_SECOND`."""
_GROWTH, _GROWTH_BASE = 2, 1 << 20
"""Limit on the tensors' bytes: `_GROWTH` x file size + `_GROWTH_BASE`.

The tensors can be larger than the file, because tensors that share memory are written separately.
"""


def run(
    source: Path,
    target: Path,
    sha256: str | None = None,
    emit: events.Emit | None = None,
    description: str | None = None,
    classes: str | None = None,
) -> int:
    """Convert `source` to `target` and return the exit code: 0, or 1 if nothing was written.

    The result or the error is emitted as events, or printed as one JSON object if `emit` is None. The resource limits
    of the process remain in place, so it cannot be used for other work afterwards. `description` and `classes` are
    those that were sent with the file, as JSON; None: the file is not compared with them.
    """
    try:
        described = DescribedWeights(_DESCRIPTION.validate_json(description)) if description else None
        facts = _convert(source, target, sha256, described, json.loads(classes) if classes else None)
    except FrsError as error:
        info = events.ErrorInfo(code=error.code, message=error.message, hint=error.hint)
        if emit is None:
            typer.echo(info.model_dump_json())
        else:
            emit(events.Outcome(status="failed", error=info))
        return 1
    if emit is None:
        typer.echo(json.dumps(facts))
    else:
        emit(events.Facts(values=facts))
        emit(events.Outcome(status="succeeded"))
    return 0


def _convert(
    source: Path, target: Path, sha256: str | None, described: DescribedWeights | None, sent: list[str] | None
) -> dict[str, Any]:
    if not source.is_file():
        raise WeightsNotFound(f"The file {source.name} does not exist.")
    _limit_process(source.stat().st_size, target.parent)
    try:
        content = weights.read(source, sha256)
        state, classes = tensors_of(content, source), class_names(content, source.name)
        if described is not None:
            described.check(content, sent)
        saved = _write(state, classes, weights.image_size_of(content), target)
        return _facts(saved, state, classes)
    except resource_limits.CpuTimeExceeded:
        raise WeightsUnreadable(f"Reading {source.name} exceeded the CPU time limit.") from None
    except MemoryError:
        raise WeightsUnreadable(f"Reading {source.name} exceeded the memory limit for a file of its size.") from None
    except OSError as error:
        raise StorageFull(f"The weights could not be written: {error.strerror}.") from None


def _limit_process(size: int, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)  # threads count as processes, whose number is limited
    resource_limits.limit_resources(
        memory=_MEMORY * size + _MEMORY_BASE,
        seconds=_SECONDS + size // _BYTES_PER_SECOND,
        file_bytes=_max_tensor_bytes(size) + weights.MAX_HEADER,
    )
    resource_limits.write_only_below(folder)


def tensors_of(content: dict[str, Any], source: Path) -> State:
    """Return the tensors of a weights file. Raises WeightsRefused if they violate a limit, or WeightsUnreadable."""
    name, state = source.name, weights.state_of(content, source.name)
    if len(state) > MAX_TENSORS:
        raise WeightsRefused(f"{name} has {len(state)} tensors; at most {MAX_TENSORS} are allowed.")
    invalid = [key for key, tensor in state.items() if not (_is_valid_name(key) and _is_plain(tensor))]
    if invalid:
        raise WeightsRefused(
            f"{name} has tensors with an invalid name or other content than plain numbers: {invalid[0][:MAX_NAME]!a}."
        )
    if sum(_bytes(tensor) for tensor in state.values()) > _max_tensor_bytes(source.stat().st_size):
        raise WeightsRefused(f"The tensors of {name} are larger than the file.")
    weights.check_finite(state, name)
    return state


def class_names(content: dict[str, Any], name: str) -> tuple[str, ...] | None:
    """Return the class names of a weights file; None if it has none.

    Raises WeightsRefused if names are invalid or too many.
    """
    classes = weights.classes_of(content)
    if classes is not None and (len(classes) > MAX_CLASSES or not all(map(_is_valid_name, classes))):
        raise WeightsRefused(f"{name} has invalid class names, or more than {MAX_CLASSES}.")
    return classes


def _write(
    state: State, classes: tuple[str, ...] | None, image_size: tuple[int, int] | None, target: Path
) -> SavedFile:
    values = {weights.CLASSES: classes, weights.IMAGE_SIZE: image_size}
    metadata = {key: json.dumps(value) for key, value in values.items() if value is not None}
    copies = {key: tensor.detach().contiguous().clone() for key, tensor in sorted(state.items())}
    return weights.write_bytes(safetensors.torch.save(copies, metadata), target)


def _facts(saved: SavedFile, state: State, classes: tuple[str, ...] | None) -> dict[str, Any]:
    return {
        "sha256": saved.sha256,
        "bytes": saved.bytes,
        "tensors": len(state),
        "parameters": sum(tensor.numel() for tensor in state.values()),
        "classes": classes and list(classes),
    }


def _is_valid_name(text: str) -> bool:
    return 0 < len(text) <= MAX_NAME and text.isprintable()


def _is_plain(tensor: Tensor) -> bool:
    """Return whether the tensor is a dense array of real numbers on the CPU."""
    dense = type(tensor) in (Tensor, nn.Parameter) and tensor.layout == torch.strided and tensor.device.type == "cpu"
    return dense and not tensor.is_quantized and not tensor.is_complex()


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _max_tensor_bytes(size: int) -> int:
    return min(MAX_BYTES, _GROWTH * size + _GROWTH_BASE)
