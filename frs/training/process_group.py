"""What the processes of one job tell each other. Alone, a process gets back what it gave, bit by bit.

Each process trains on its share of a step's images; the mean over processes of their losses is the whole batch's.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from mmengine import dist
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.distributed import DistError, FileStore, destroy_process_group, init_process_group  # type: ignore[attr-defined]

T = TypeVar("T")
TIMEOUT = timedelta(minutes=30)
"""Longest wait for another process: for the first one writing a checkpoint to a slow disk."""


@contextmanager
def process_group(rank: int, processes: int, store: Path, gpus: bool) -> Iterator[None]:
    """One of `world_size` that meet at the file `store`; with `gpus` the process's device is the one of its rank."""
    if gpus:
        torch.cuda.set_device(rank)
    meeting = FileStore(str(store), processes)
    init_process_group("nccl" if gpus else "gloo", store=meeting, rank=rank, world_size=processes, timeout=TIMEOUT)
    yield
    destroy_process_group()  # not after an error: NCCL's would wait for the others


def world_size() -> int:
    return dist.get_world_size()


def rank() -> int:
    """From 0. Rank 0 alone tells events and writes files."""
    return dist.get_rank()


def shard(items: Sequence[T]) -> list[T]:
    """This process's part of `items`: consecutive ones, in the order of ranks, as even as can be."""
    first, end = (len(items) * place // world_size() for place in (rank(), rank() + 1))
    return list(items[first:end])


def all_gather(value: T) -> list[T]:
    """Everybody's value, by rank, as plain Python objects."""
    return dist.all_gather_object(value)


def all_reduce_mean(values: Tensor) -> Tensor:
    values = values.clone()
    dist.all_reduce(values, op="mean")
    return values


def all_reduce_max(*values: float) -> list[float]:
    """The highest that any process has, of each."""
    if world_size() == 1:
        return list(values)
    found = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(found, op="max")
    return found.tolist()


def broadcast_from_rank0(tensors: Iterable[Tensor]) -> None:
    """Every process's tensors become rank 0's."""
    for tensor in tensors:
        dist.broadcast(tensor.detach())


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Each gradient becomes its mean over processes, 0 counting where a process has none; none where nobody has one.

    One all-reduce of one flat tensor after the backward pass: for a moment the gradients' memory twice, and nothing
    overlapped with the backward pass.
    """
    if world_size() == 1:
        return
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    reached = trained[0].new_tensor([parameter.grad is not None for parameter in trained])
    own = [torch.zeros_like(p) if p.grad is None else p.grad for p in trained]
    flat = torch.cat([*(gradient.reshape(-1) for gradient in own), reached])
    dist.all_reduce(flat, op="mean")
    *averaged, reached = flat.split([*(parameter.numel() for parameter in trained), len(trained)])
    for parameter, gradient, somewhere in zip(trained, averaged, reached.tolist(), strict=True):
        parameter.grad = gradient.view_as(parameter) if somewhere else None


def all_gather_rows(rows: NDArray[Any]) -> NDArray[Any]:
    """Everybody's rows, in the order of ranks."""
    return np.concatenate(all_gather(rows))


def is_peer_lost(error: Exception) -> bool:
    """Whether the error only says that another process has gone."""
    return isinstance(error, DistError) or (isinstance(error, RuntimeError) and "gloo/" in str(error))
