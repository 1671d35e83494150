"""Reading and writing weights. Files from outside are data: tensors and plain values, never code."""

import hashlib
import io
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors.torch
import torch
from mmengine.logging.history_buffer import HistoryBuffer
from numpy._core import multiarray as _multiarray
from torch import Tensor, nn

from frs.errors import TeacherWeightsMismatch, WeightsUnreadable

State = dict[str, Tensor]


def _inert(*_: Any) -> None:
    """Stands in for `getattr`, by which mmengine's log buffers name their own methods; nothing needs those."""


_MMENGINE_TYPES: list[Any] = [
    HistoryBuffer,
    np.ndarray,
    np.dtype,
    *{type(np.dtype(kind)) for kind in ("float32", "float64", "int32", "int64", "uint8", "bool")},
    *[(_multiarray._reconstruct, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")],
    *[(_multiarray.scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")],
    (_inert, "builtins.getattr"),
]
"""What every ordinary mmengine training checkpoint holds beside tensors, and the names it is pickled under."""


class Written(NamedTuple):
    path: Path
    sha256: str
    bytes: int


def read(path: Path, sha256: str | None = None) -> dict[str, Any]:
    """A torch or safetensors file as a dictionary, on the CPU. Never runs code from the file.

    Raises WeightsUnreadable, also when the file does not hash to `sha256`.
    """
    if sha256 is not None and digest(path) != sha256:
        raise WeightsUnreadable(f"{path.name} is not the file that was registered: its sha256 differs.")
    try:
        if path.suffix == ".safetensors":
            return {"state_dict": safetensors.torch.load_file(path)}
        with torch.serialization.safe_globals(_MMENGINE_TYPES):
            content = torch.load(path, map_location="cpu", weights_only=True)  # noqa: TID251
    except Exception as error:  # whatever a hostile file makes the reader raise
        raise WeightsUnreadable(f"{path.name} is no weights file: {type(error).__name__}.") from error
    if not isinstance(content, dict):
        raise WeightsUnreadable(f"{path.name} holds a {type(content).__name__}, not a dictionary.")
    return content


def state_of(content: Mapping[str, Any], name: str) -> State:
    """The tensors of a weights file: its `state_dict`, or the file itself. Raises WeightsUnreadable."""
    state = content.get("state_dict", content)
    if not isinstance(state, Mapping) or not state:
        raise WeightsUnreadable(f"{name} holds no state_dict.")
    if not all(isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()):
        raise WeightsUnreadable(f"The state_dict of {name} holds other things than tensors.")
    return dict(state)


def classes_of(content: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Class names kept in a weights file's `meta` (mmdet 3 and 2 spellings); None where it keeps none."""
    meta = content.get("meta")
    dataset = meta.get("dataset_meta", meta) if isinstance(meta, dict) else {}
    names = (dataset.get("classes") or dataset.get("CLASSES")) if isinstance(dataset, dict) else None
    names = [names] if isinstance(names, str) else names
    return tuple(str(name) for name in names) if isinstance(names, list | tuple) else None


def load(detector: nn.Module, content: Mapping[str, Any], name: str) -> None:
    """Loads every key, strictly. Raises TeacherWeightsMismatch naming what is missing, unknown or of another shape."""
    try:
        missing, unknown = detector.load_state_dict(state_of(content, name), strict=False)
    except RuntimeError as error:
        shapes = [line.strip() for line in str(error).splitlines()[1:]]
        raise TeacherWeightsMismatch(
            f"{name} does not fit the detector: {len(shapes)} shapes differ, {shapes[0]}"
        ) from error
    missing = [key for key in missing if not key.endswith("num_batches_tracked")]
    if missing or unknown:
        said = "; ".join(
            f"{len(keys)} {what} ({keys[0]}, ...)"
            for what, keys in [("missing", missing), ("unknown", unknown)]
            if keys
        )
        raise TeacherWeightsMismatch(f"{name} does not fit the detector: {said}.")


def load_all_but(detector: nn.Module, content: Mapping[str, Any], name: str, left_out: Collection[str]) -> list[str]:
    """Loads every key but those, which stay as they are. Returns those the file has. Raises TeacherWeightsMismatch."""
    state, own = state_of(content, name), detector.state_dict()
    present = sorted(key for key in left_out if key in state)
    load(detector, state | {key: own[key] for key in left_out}, name)
    return present


def fits(detector: nn.Module, content: Mapping[str, Any], name: str, keys: Collection[str]) -> bool:
    """Whether the file has tensors of the detector's shapes under these keys. Raises WeightsUnreadable."""
    state, own = state_of(content, name), detector.state_dict()
    return all(key in state and state[key].shape == own[key].shape for key in keys)


def load_backbone(backbone: nn.Module, path: Path) -> None:
    """ImageNet weights; the classifier they end with is left out. Raises TeacherWeightsMismatch."""
    state = state_of(read(path), path.name)
    own = backbone.state_dict()
    wanted = {key for key in own if not key.endswith("num_batches_tracked")}
    fitting = {key: value for key, value in state.items() if key in wanted and value.shape == own[key].shape}
    if fitting.keys() != wanted:
        raise TeacherWeightsMismatch(
            f"{path.name} does not fit the backbone: {len(wanted - fitting.keys())} of {len(wanted)} tensors are missing.",
            "ImageNet weights exist for ResNets of width 64 with batch norm; use `init: random` for others.",
        )
    backbone.load_state_dict(fitting, strict=False)


def write(content: Mapping[str, Any], path: Path) -> Written:
    """Writes a torch file whole or not at all; its bytes depend on the content alone."""
    buffer = io.BytesIO()  # torch.save puts a file's name into its bytes
    torch.save(dict(content), buffer)
    return write_bytes(buffer.getvalue(), path)


def write_bytes(data: bytes, path: Path) -> Written:
    """Temporary name, fsync, sha256, rename, fsync of the folder. `{sha8}` in the name becomes the first 8 of the sha256."""
    sha256 = hashlib.sha256(data).hexdigest()
    path = path.with_name(path.name.replace("{sha8}", sha256[:8]))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return Written(path, sha256, len(data))


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
