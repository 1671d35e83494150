"""The GPUs that a worker may assign to trainers: those that NVML lists and CUDA_VISIBLE_DEVICES does not hide."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from itertools import takewhile
from typing import Any

import pynvml

from store.db.tables import Document

VISIBLE = "CUDA_VISIBLE_DEVICES"
"""Environment variable that selects the GPUs of a process."""


def gpu_ids(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Return the GPUs in the form that CUDA_VISIBLE_DEVICES takes; an empty list without a driver.

    Like CUDA, ignore the first entry of the variable that names no GPU, and all after it.
    """
    indices = [str(gpu["index"]) for gpu in _all_gpus()]
    visible = environment.get(VISIBLE)
    if visible is None:
        return indices
    names = (name.strip() for name in visible.split(","))
    return list(takewhile(lambda name: name in indices or name.startswith(("GPU-", "MIG-")), names))


def gpu_states(environment: Mapping[str, str] = os.environ) -> list[Document]:
    """Return `{index, uuid, name, memory_total, memory_used, utilization}` of each GPU.

    Memory is in bytes, utilization in percent; a value that the driver does not report is None.
    """
    usable = gpu_ids(environment)
    return [gpu for gpu in _all_gpus() if str(gpu["index"]) in usable or gpu["uuid"] in usable]


def _all_gpus() -> list[Document]:
    if not has_driver():
        return []
    with _nvml():
        return [_describe(index) for index in range(pynvml.nvmlDeviceGetCount())]


@cache
def has_driver() -> bool:
    """Return whether this host has a GPU driver; it is looked up once."""
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
    memory = _query(pynvml.nvmlDeviceGetMemoryInfo, handle)
    rates = _query(pynvml.nvmlDeviceGetUtilizationRates, handle)
    return {
        "index": index,
        "uuid": _query(pynvml.nvmlDeviceGetUUID, handle),
        "name": _query(pynvml.nvmlDeviceGetName, handle),
        "memory_total": memory and int(memory.total),
        "memory_used": memory and int(memory.used),
        "utilization": rates and int(rates.gpu),
    }


def _query(function: Any, handle: Any) -> Any:
    """Return the driver's answer; None where it has none, as for a virtual GPU or a partition of a GPU."""
    try:
        return function(handle)
    except pynvml.NVMLError:
        return None
