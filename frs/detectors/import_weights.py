"""Weights from anywhere become a safetensors file of ours: tensors and class names, nothing else, within bounds."""

import json
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import typer
from torch import Tensor, nn

from frs import events
from frs.detectors import weights
from frs.detectors.weights import SavedFile, State
from frs.errors import FrsError, StorageFull, WeightsNotFound, WeightsRefused, WeightsUnreadable
from frs.isolation import resource_limits

MAX_TENSORS = 20_000
MAX_BYTES = 16 << 30
MAX_CLASSES = 20_000
MAX_NAME = 300
_MEMORY, _MEMORY_BASE = 4, 2 << 30
"""Bytes for each of the file's, and to begin with: what is read, made contiguous, and written is there at once."""
_SECONDS, _BYTES_A_SECOND = 60, 20_000_000
_GROWTH, _GROWTH_BASE = 2, 1 << 20
"""Tensors may share memory in the file, and are written one by one."""


def run(source: Path, target: Path, sha256: str | None = None, tell: events.Emit | None = None) -> int:
    """Tells what was written (exit code 0), or why nothing was (1): as events, or printed as one JSON object.

    The process is of no use afterwards.
    """
    try:
        said = _imported(source, target, sha256)
    except FrsError as error:
        problem = events.ErrorInfo(code=error.code, message=error.message, hint=error.hint)
        if tell is None:
            typer.echo(problem.model_dump_json())
        else:
            tell(events.Outcome(status="failed", error=problem))
        return 1
    if tell is None:
        typer.echo(json.dumps(said))
    else:
        tell(events.Facts(values=said))
        tell(events.Outcome(status="succeeded"))
    return 0


def _imported(source: Path, target: Path, sha256: str | None) -> dict[str, Any]:
    if not source.is_file():
        raise WeightsNotFound(f"There is no file {source.name}.")
    _lock_in(source.stat().st_size, target.parent)
    try:
        content = weights.read(source, sha256)
        state, classes = tensors_of(content, source), class_names(content, source.name)
        return _told(_write(state, classes, target), state, classes)
    except resource_limits.CpuTimeExceeded:
        raise WeightsUnreadable(f"{source.name} took too long to read.") from None
    except MemoryError:
        raise WeightsUnreadable(f"{source.name} takes more memory than a file of its size should.") from None
    except OSError as error:
        raise StorageFull(f"The weights could not be written: {error.strerror}.") from None


def _lock_in(size: int, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)  # threads count as processes, of which there shall be no more
    resource_limits.limit_resources(
        memory=_MEMORY * size + _MEMORY_BASE,
        seconds=_SECONDS + size // _BYTES_A_SECOND,
        file_bytes=_largest(size) + weights.MAX_HEADER,
    )
    resource_limits.write_only_below(folder)


def tensors_of(content: dict[str, Any], source: Path) -> State:
    """Raises WeightsUnreadable, WeightsRefused."""
    name, state = source.name, weights.state_of(content, source.name)
    if len(state) > MAX_TENSORS:
        raise WeightsRefused(f"{name} holds {len(state)} tensors; at most {MAX_TENSORS} are taken.")
    strange = [key for key, tensor in state.items() if not (_is_a_name(key) and _is_plain(tensor))]
    if strange:
        raise WeightsRefused(f"{name} holds tensors that are not plain numbers: {strange[0][:MAX_NAME]!a}.")
    if sum(_bytes(tensor) for tensor in state.values()) > _largest(source.stat().st_size):
        raise WeightsRefused(f"The tensors of {name} are larger than the file.")
    weights.refuse_not_finite(state, name)
    return state


def class_names(content: dict[str, Any], name: str) -> tuple[str, ...] | None:
    """Raises WeightsRefused."""
    classes = weights.classes_of(content)
    if classes is not None and (len(classes) > MAX_CLASSES or not all(map(_is_a_name, classes))):
        raise WeightsRefused(f"{name} holds class names that are none, or too many.")
    return classes


def _write(state: State, classes: tuple[str, ...] | None, target: Path) -> SavedFile:
    metadata = {} if classes is None else {weights.CLASSES: json.dumps(classes)}
    own = {key: tensor.detach().contiguous().clone() for key, tensor in sorted(state.items())}
    return weights.write_bytes(safetensors.torch.save(own, metadata), target)


def _told(written: SavedFile, state: State, classes: tuple[str, ...] | None) -> dict[str, Any]:
    return {
        "sha256": written.sha256,
        "bytes": written.bytes,
        "tensors": len(state),
        "parameters": sum(tensor.numel() for tensor in state.values()),
        "classes": classes and list(classes),
    }


def _is_a_name(text: str) -> bool:
    return 0 < len(text) <= MAX_NAME and text.isprintable()


def _is_plain(tensor: Tensor) -> bool:
    """Dense real numbers in this process's memory."""
    kind = type(tensor) in (Tensor, nn.Parameter) and tensor.layout == torch.strided and tensor.device.type == "cpu"
    return kind and not tensor.is_quantized and not tensor.is_complex()


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _largest(size: int) -> int:
    return min(MAX_BYTES, _GROWTH * size + _GROWTH_BASE)
