"""The GPUs of this host that its worker may give to trainers: what NVML sees and CUDA_VISIBLE_DEVICES leaves."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from itertools import takewhile
from typing import Any

import pynvml

from store.db.tables import Document

VISIBLE = "CUDA_VISIBLE_DEVICES"


def gpu_ids(environment: Mapping[str, str] = os.environ) -> list[str]:
    """How a trainer is told of each; none without a driver."""
    found = [gpu["index"] for gpu in _all()]
    visible = environment.get(VISIBLE)
    if visible is None:
        return [str(index) for index in found]
    chosen = (name.strip() for name in visible.split(","))
    known = {str(index) for index in found}
    return list(takewhile(lambda name: name in known or name.startswith(("GPU-", "MIG-")), chosen))


def gpu_states(environment: Mapping[str, str] = os.environ) -> list[Document]:
    """`{index, name, memory_total, memory_used, utilization}` of each; bytes and percent, null where not told."""
    usable = gpu_ids(environment)
    return [gpu for gpu in _all() if str(gpu["index"]) in usable or gpu["uuid"] in usable]


def _all() -> list[Document]:
    if not _has_driver():
        return []
    with _nvml():
        return [_describe(index) for index in range(pynvml.nvmlDeviceGetCount())]


@cache
def _has_driver() -> bool:
    try:
        with _nvml():
            return True
    except pynvml.NVMLError:
        return False


@contextmanager
def _nvml() -> Iterator[None]:
    pynvml.nvmlInit()
    try:
        yield
    finally:
        pynvml.nvmlShutdown()


def _describe(index: int) -> Document:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    memory = _told(pynvml.nvmlDeviceGetMemoryInfo, handle)
    rates = _told(pynvml.nvmlDeviceGetUtilizationRates, handle)
    return {
        "index": index,
        "uuid": _told(pynvml.nvmlDeviceGetUUID, handle),
        "name": _told(pynvml.nvmlDeviceGetName, handle),
        "memory_total": memory and int(memory.total),
        "memory_used": memory and int(memory.used),
        "utilization": rates and int(rates.gpu),
    }


def _told(question: Any, handle: Any) -> Any:
    try:
        return question(handle)
    except pynvml.NVMLError:  # a virtual GPU, or a partition of one, does not tell everything
        return None
