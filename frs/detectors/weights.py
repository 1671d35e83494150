"""Read and write weights files. Files from users are data: tensors and plain values, never code."""

import hashlib
import io
import json
import os
import re
import zipfile
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import torch
from torch import Tensor, nn

from frs.detectors import foreign_files
from frs.detectors.checkpoint_layouts import BACKBONE_PREFIXES, State, tensors_in, without_wrappers
from frs.errors import TeacherWeightsMismatch, WeightsRefused, WeightsUnreadable
from frs.files import digest, sync
from frs.schedule_spec import MAX_SIDE, MIN_SIDE

CLASSES = "classes"
"""Key in the metadata of our safetensors files: the class names as a JSON list."""
IMAGE_SIZE = "image_size"
"""Key in the `meta` of our files: [width, height] in pixels that images are scaled into; JSON in safetensors files."""
_TEST_PIPELINE = re.compile(r"^test_pipeline = .*(?:\n[ \])}].*)*", re.MULTILINE)
"""A variable of a config's text: its first line and the indented or closing lines after it."""
_SCALE = re.compile(r"\b(?:img_)?scale=\(\s*(\d{1,5}),\s*(\d{1,5}),?\s*\)")


class _Placeholder:
    """Replacement for every object that is neither a tensor nor a plain value; none of them is used.

    NumPy's own types would accept sizes, flags and raw memory from the file without checks.
    """

    def __new__(cls, *_: Any, **__: Any) -> "_Placeholder":
        return super().__new__(cls)

    def __setstate__(self, _: Any) -> None:
        pass


_MMENGINE_TYPES: list[Any] = [
    (_Placeholder, name)
    for name in (
        "mmengine.logging.history_buffer.HistoryBuffer",
        "builtins.getattr",
        "numpy.ndarray",
        "numpy.dtype",
        *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
    )
]
"""Types, beside tensors, that every ordinary mmengine training checkpoint contains, with their replacement."""
_ARCHIVE_SLACK_BYTES = 1 << 20
MAX_HEADER = 100_000_000
"""Largest header of a safetensors file in bytes; the safetensors library has the same limit."""


class SavedFile(NamedTuple):
    """A file that was written completely."""

    path: Path
    sha256: str
    """SHA-256 of the content, lower-case hex."""
    bytes: int
    """Size in bytes."""


def read(path: Path, sha256: str | None = None) -> dict[str, Any]:
    """Return the content of a torch or safetensors file as a dictionary on the CPU. No code from the file runs.

    The format is detected from the content, not from the name. Raises WeightsUnreadable if the file is not a weights
    file, or if its hash is not `sha256`.
    """
    if sha256 is not None and digest(path) != sha256:
        raise WeightsUnreadable(f"{path.name} is not the file that was registered: its sha256 differs.")
    try:
        if _is_safetensors(path):
            return _read_safetensors(path)
        _check_archive(path)
        with torch.serialization.safe_globals(_MMENGINE_TYPES):
            content = torch.load(path, map_location="cpu", weights_only=True)  # noqa: TID251
    except Exception as error:  # a malicious file can cause any exception
        reason, hint = foreign_files.describe(path, error)
        raise WeightsUnreadable(f"{path.name} {reason}", hint) from error
    if not isinstance(content, dict):
        raise WeightsUnreadable(f"{path.name} contains a {type(content).__name__} instead of a dictionary.")
    return content


def state_of(content: Mapping[str, Any], name: str) -> State:
    """Return the tensors of a weights file: of its `state_dict` or a similar entry, or its whole content.

    `name` is the file's name for messages. Raises WeightsUnreadable if there are no tensors, or other objects.
    """
    state = tensors_in(content)
    if not state:
        raise WeightsUnreadable(f"{name} has no state_dict.")
    if not all(isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()):
        raise WeightsUnreadable(f"The state_dict of {name} contains objects that are not tensors.")
    return dict(state)


def classes_of(content: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return the class names in a weights file's `meta` (in the spelling of mmdet 3 or 2); None if it has none."""
    meta = content.get("meta")
    dataset = meta.get("dataset_meta", meta) if isinstance(meta, dict) else {}
    names = (dataset.get("classes") or dataset.get("CLASSES")) if isinstance(dataset, dict) else None
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        return None
    return tuple(names)


def image_size_of(content: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return the [width, height] in pixels that images are scaled into for the detector of a weights file.

    It is in the `meta` of our files; mmengine and mmdet 2 save the text of the config, with its test pipeline. None if
    the file has neither.
    """
    meta = content.get("meta")
    if not isinstance(meta, dict):
        return None
    size, config = meta.get(IMAGE_SIZE), meta.get("cfg", meta.get("config"))
    if size is None and isinstance(config, str) and (pipeline := _TEST_PIPELINE.search(config)):
        scale = _SCALE.search(pipeline[0])
        size = scale and [int(side) for side in scale.groups()]
    if not isinstance(size, list | tuple) or len(size) != 2:
        return None
    width, height = size
    valid = all(type(side) is int and MIN_SIDE <= side <= MAX_SIDE for side in size)
    return (width, height) if valid else None


def load(detector: nn.Module, content: Mapping[str, Any], name: str) -> None:
    """Load every tensor of the detector from a weights file.

    Raises WeightsRefused if numbers are not finite, and TeacherWeightsMismatch if tensors are missing, unknown or of
    another type or shape.
    """
    target = detector.state_dict()
    state = without_wrappers(state_of(content, name), _required(target))
    check_finite(state, name)
    mistyped = [key for key, tensor in state.items() if key in target and _kind(tensor) != _kind(target[key])]
    if mistyped:
        raise TeacherWeightsMismatch(
            f"{name} does not match the detector: {len(mistyped)} types differ ({mistyped[0]}, ...)."
        )
    try:
        missing, unknown = detector.load_state_dict(state, strict=False)
    except RuntimeError as error:
        shapes = [line.strip() for line in str(error).splitlines()[1:]]
        raise TeacherWeightsMismatch(
            f"{name} does not match the detector: {len(shapes)} shapes differ, {shapes[0]}"
        ) from error
    missing = [key for key in missing if not key.endswith("num_batches_tracked")]
    backbone = {key.removeprefix("backbone.") for key in missing if key.startswith("backbone.")}
    if backbone and backbone <= without_wrappers(state, backbone).keys():
        raise TeacherWeightsMismatch(
            f"{name} has the tensors of a backbone, not of a detector.",
            f"For a student, set `init: {{backbone: {name}}}`: its neck and head then start from random weights.",
        )
    if missing or unknown:
        reasons = "; ".join(
            f"{len(keys)} {label} ({keys[0]}, ...)"
            for label, keys in [("missing", missing), ("unknown", unknown)]
            if keys
        )
        raise TeacherWeightsMismatch(f"{name} does not match the detector: {reasons}.")


def load_except(detector: nn.Module, content: Mapping[str, Any], name: str, excluded: Collection[str]) -> list[str]:
    """Load every tensor except those with the keys `excluded`, and return the excluded keys that the file has.

    Raises WeightsRefused or TeacherWeightsMismatch as `load` does.
    """
    target = detector.state_dict()
    state = without_wrappers(state_of(content, name), _required(target) - set(excluded))
    present = sorted(key for key in excluded if key in state)
    load(detector, state | {key: target[key] for key in excluded}, name)
    return present


def shapes_match(detector: nn.Module, content: Mapping[str, Any], name: str, keys: Collection[str]) -> bool:
    """Return whether the file has tensors of the detector's shapes under `keys`. Raises WeightsUnreadable."""
    target = detector.state_dict()
    state = without_wrappers(state_of(content, name), keys)
    return all(key in state and state[key].shape == target[key].shape for key in keys)


def load_backbone(backbone: nn.Module, state: State, name: str) -> None:
    """Load the backbone's tensors from those of a file called `name`, which may have others, such as a classifier's.

    Raises TeacherWeightsMismatch if it lacks tensors of the backbone, WeightsRefused if numbers are not finite.
    """
    target = backbone.state_dict()
    required = _required(target)
    state = without_wrappers(state, required, BACKBONE_PREFIXES)
    check_finite(state, name)
    matching = {key: value for key, value in state.items() if key in required and value.shape == target[key].shape}
    if matching.keys() != required:
        missing = len(required - matching.keys())
        raise TeacherWeightsMismatch(
            f"{name} does not match the backbone: {missing} of {len(required)} tensors are missing or have "
            f"another shape ({min(required - matching.keys())}, ...).",
            "The file must have the backbone's type, size and norm. `frs models list` lists those with ImageNet "
            "weights, such as a ResNet of width 64 with batch norm. Use `init: random` for others.",
        )
    backbone.load_state_dict(matching, strict=False)


def check_finite(state: State, name: str) -> None:
    """Raise WeightsRefused if a tensor has numbers that are not finite."""
    counts = {key: count for key, tensor in state.items() if (count := _count_not_finite(tensor))}
    if counts:
        raise WeightsRefused(
            f"{name} contains {sum(counts.values())} numbers that are not finite, in {len(counts)} tensors "
            f"({min(counts)}, ...)."
        )


def write(content: Mapping[str, Any], path: Path) -> SavedFile:
    """Write a torch file atomically. Its bytes depend on the content alone."""
    buffer = io.BytesIO()  # given a path, torch.save writes the file's name into the content
    torch.save(dict(content), buffer)
    return write_bytes(buffer.getvalue(), path)


def write_bytes(data: bytes, path: Path) -> SavedFile:
    """Write a file atomically: temporary name, fsync, rename, fsync of the folder.

    `{sha8}` in the name is replaced by the first 8 hex digits of the SHA-256.
    """
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


def _read_safetensors(path: Path) -> dict[str, Any]:
    with safetensors.safe_open(path, "pt") as file:
        state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        metadata = file.metadata() or {}
    meta: dict[str, Any] = {}
    for key in {CLASSES, IMAGE_SIZE} & metadata.keys():
        with suppress(ValueError, RecursionError):  # other programs may use that key for something else
            meta[key] = json.loads(metadata[key])
    return {"state_dict": state, "meta": meta}


def _check_archive(path: Path) -> None:
    """Raise ValueError if a torch archive is compressed or damaged.

    torch writes its archives uncompressed, so a compressed one is malicious. torch does not verify the checksums.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        if sum(member.file_size for member in archive.infolist()) > path.stat().st_size + _ARCHIVE_SLACK_BYTES:
            raise ValueError("The archive is compressed.")
        if damaged := archive.testzip():
            raise ValueError(f"{damaged} is damaged.")


def _required(target: Mapping[str, Tensor]) -> set[str]:
    """Return the keys that a weights file must have; the counters of batch norms do not matter in eval mode."""
    return {key for key in target if not key.endswith("num_batches_tracked")}


def _count_not_finite(tensor: Tensor) -> int:
    if not tensor.is_floating_point() or tensor.is_meta or tensor.layout != torch.strided or not tensor.numel():
        return 0
    # a finite sum proves that all numbers are finite, without allocating an array; it may also overflow, so count then
    wide = tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()
    return 0 if wide.sum(dtype=torch.float64).isfinite() else int((~wide.isfinite()).sum())


def _kind(tensor: Tensor) -> tuple[bool, bool, bool, torch.layout]:
    return tensor.is_floating_point(), tensor.is_complex(), tensor.is_quantized, tensor.layout
