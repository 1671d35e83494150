"""Reading and writing weights. Files from outside are data: tensors and plain values, never code."""

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import torch
from torch import Tensor, nn

from frs.errors import TeacherWeightsMismatch, WeightsRefused, WeightsUnreadable
from frs.files import digest, sync

State = dict[str, Tensor]
CLASSES = "classes"
"""Under this key of its metadata a safetensors file of ours keeps the class names, as a JSON list."""


class _Inert:
    """Stands in for everything that is neither tensor nor plain value; nothing needs those, so nothing makes them.

    NumPy's own types would take sizes, flags and raw memory from the file on trust.
    """

    def __new__(cls, *_: Any, **__: Any) -> "_Inert":
        return super().__new__(cls)

    def __setstate__(self, _: Any) -> None:
        pass


_MMENGINE_TYPES: list[Any] = [
    (_Inert, name)
    for name in (
        "mmengine.logging.history_buffer.HistoryBuffer",
        "builtins.getattr",
        "numpy.ndarray",
        "numpy.dtype",
        *(f"numpy.{core}.multiarray.{what}" for core in ("core", "_core") for what in ("_reconstruct", "scalar")),
    )
]
"""The names of what every ordinary mmengine training checkpoint holds beside tensors."""
_STORED_SLACK = 1 << 20
MAX_HEADER = 100_000_000
"""Bytes of the longest header of a safetensors file, as the library has it."""


class SavedFile(NamedTuple):
    path: Path
    sha256: str
    bytes: int


def read(path: Path, sha256: str | None = None) -> dict[str, Any]:
    """A torch or safetensors file, whatever its name, as a dictionary, on the CPU. Never runs code from the file.

    Raises WeightsUnreadable, also when the file does not hash to `sha256`.
    """
    if sha256 is not None and digest(path) != sha256:
        raise WeightsUnreadable(f"{path.name} is not the file that was registered: its sha256 differs.")
    try:
        if _is_safetensors(path):
            return _safetensors(path)
        _check_archive(path)
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
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        return None
    return tuple(names)


def load(detector: nn.Module, content: Mapping[str, Any], name: str) -> None:
    """Loads every key, strictly. Raises WeightsRefused for numbers that are not finite, else TeacherWeightsMismatch

    naming what is missing, unknown or of another kind or shape.
    """
    state, own = state_of(content, name), detector.state_dict()
    refuse_not_finite(state, name)
    other = [key for key, tensor in state.items() if key in own and _kind(tensor) != _kind(own[key])]
    if other:
        raise TeacherWeightsMismatch(f"{name} does not fit the detector: {len(other)} types differ ({other[0]}, ...).")
    try:
        missing, unknown = detector.load_state_dict(state, strict=False)
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
    refuse_not_finite(state, path.name)
    own = backbone.state_dict()
    wanted = {key for key in own if not key.endswith("num_batches_tracked")}
    fitting = {key: value for key, value in state.items() if key in wanted and value.shape == own[key].shape}
    if fitting.keys() != wanted:
        raise TeacherWeightsMismatch(
            f"{path.name} does not fit the backbone: {len(wanted - fitting.keys())} of {len(wanted)} tensors are missing.",
            "ImageNet weights exist for ResNets of width 64 with batch norm; use `init: random` for others.",
        )
    backbone.load_state_dict(fitting, strict=False)


def refuse_not_finite(state: State, name: str) -> None:
    """Raises WeightsRefused."""
    found = {key: count for key, tensor in state.items() if (count := _not_finite(tensor))}
    if found:
        raise WeightsRefused(
            f"{name} holds {sum(found.values())} numbers that are not finite, in {len(found)} tensors "
            f"({min(found)}, ...)."
        )


def write(content: Mapping[str, Any], path: Path) -> SavedFile:
    """Writes a torch file whole or not at all; its bytes depend on the content alone."""
    buffer = io.BytesIO()  # torch.save puts a file's name into its bytes
    torch.save(dict(content), buffer)
    return write_bytes(buffer.getvalue(), path)


def write_bytes(data: bytes, path: Path) -> SavedFile:
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
    sync(path.parent)
    return SavedFile(path, sha256, len(data))


def _is_safetensors(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(9)
    return len(start) == 9 and start[8:] == b"{" and int.from_bytes(start[:8], "little") <= MAX_HEADER


def _safetensors(path: Path) -> dict[str, Any]:
    with safetensors.safe_open(path, "pt") as file:
        state, said = {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
    content: dict[str, Any] = {"state_dict": state}
    with suppress(ValueError, RecursionError):  # other programs may mean other things by that key
        content["meta"] = {CLASSES: json.loads(said[CLASSES])} if CLASSES in said else {}
    return content


def _check_archive(path: Path) -> None:
    """Torch packs nothing that it writes, so nothing may grow in memory; and it does not compare the sums of tensors.

    Raises ValueError.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        if sum(member.file_size for member in archive.infolist()) > path.stat().st_size + _STORED_SLACK:
            raise ValueError("It grows when it is read.")
        if damaged := archive.testzip():
            raise ValueError(f"{damaged} is damaged.")


def _not_finite(tensor: Tensor) -> int:
    if not tensor.is_floating_point() or tensor.is_meta or tensor.layout != torch.strided or not tensor.numel():
        return 0
    # the sum tells of one that is not finite without an array of answers; overflow alone asks for a closer look
    wide = tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()
    return 0 if wide.sum(dtype=torch.float64).isfinite() else int((~wide.isfinite()).sum())


def _kind(tensor: Tensor) -> tuple[bool, bool, bool, torch.layout]:
    return tensor.is_floating_point(), tensor.is_complex(), tensor.is_quantized, tensor.layout
