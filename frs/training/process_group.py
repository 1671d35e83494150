"""Collective operations between the processes of one job. With one process they return their input unchanged.

Each process trains on its part of a step's images; the mean of the processes' losses is the loss of the whole batch.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
from mmengine import dist
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.distributed import (  # type: ignore[attr-defined]
    Backend,
    DistError,
    ProcessGroupGloo,
    Store,
    destroy_process_group,
    init_process_group,
)

T = TypeVar("T")
TIMEOUT = timedelta(minutes=30)
"""Longest wait for another process, such as rank 0 that writes a checkpoint to a slow disk."""


@contextmanager
def process_group(
    rank: int, world_size: int, store: Store, gpu: int | None = None, address: str | None = None
) -> Iterator[None]:
    """Join a group of `world_size` processes through `store`.

    With `gpu`, the process uses the GPU of this index on its host, and NCCL; otherwise gloo, which listens at `address`
    or, by default, at the interface of GLOO_SOCKET_IFNAME.
    """
    if gpu is not None:
        torch.cuda.set_device(gpu)
    backend = "nccl" if gpu is not None else "gloo" if address is None else _gloo_at(address)
    init_process_group(backend, store=store, rank=rank, world_size=world_size, timeout=TIMEOUT)
    yield
    destroy_process_group()  # not after an error: NCCL would wait for the other processes


def _gloo_at(address: str) -> str:
    """Return the name of a backend: gloo on this address, for which init_process_group has no option.

    By default, gloo listens at the address of this host's name, which is often that of the loopback interface.
    """

    def create(options: Any, _: object) -> ProcessGroupGloo:
        gloo = ProcessGroupGloo._Options()  # type: ignore[attr-defined]
        gloo._devices = [ProcessGroupGloo.create_device(hostname=address)]
        gloo._timeout = options.timeout
        return ProcessGroupGloo(options.store, options.group_rank, options.group_size, gloo)

    Backend.register_backend("gloo_at", create, extended_api=True, devices=["cpu"])
    return "gloo_at"


def world_size() -> int:
    """Return the number of processes."""
    return dist.get_world_size()


def rank() -> int:
    """Return this process's rank, from 0. Only rank 0 emits events and writes files."""
    return dist.get_rank()


def shard(items: Sequence[T]) -> list[T]:
    """Return this process's part of `items`: consecutive items, in order of rank, split as evenly as possible."""
    first, end = (len(items) * position // world_size() for position in (rank(), rank() + 1))
    return list(items[first:end])


def all_gather(value: T) -> list[T]:
    """Return the values of all processes in order of rank. Values are pickled."""
    return dist.all_gather_object(value)


def all_reduce_mean(values: Tensor) -> Tensor:
    """Return the mean of `values` over processes, elementwise."""
    values = values.clone()
    dist.all_reduce(values, op="mean")
    return values


def all_reduce_max(*values: float) -> list[float]:
    """Return the maximum of each value over processes."""
    if world_size() == 1:
        return list(values)
    maxima = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(maxima, op="max")
    return maxima.tolist()


def broadcast_from_rank0(tensors: Iterable[Tensor]) -> None:
    """Overwrite the tensors of every process with those of rank 0."""
    for tensor in tensors:
        dist.broadcast(tensor.detach())


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace each gradient by its mean over processes.

    A missing gradient counts as 0; a gradient that is missing in every process stays None. One all-reduce of one flat
    tensor after the backward pass: it needs the memory of the gradients twice, and does not overlap with the backward
    pass.
    """
    if world_size() == 1:
        return
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    has_gradient = trained[0].new_tensor([parameter.grad is not None for parameter in trained])
    local = [torch.zeros_like(p) if p.grad is None else p.grad for p in trained]
    flat = torch.cat([*(gradient.reshape(-1) for gradient in local), has_gradient])
    dist.all_reduce(flat, op="mean")
    *averaged, has_gradient = flat.split([*(parameter.numel() for parameter in trained), len(trained)])
    for parameter, gradient, in_any_process in zip(trained, averaged, has_gradient.tolist(), strict=True):
        parameter.grad = gradient.view_as(parameter) if in_any_process else None


def all_gather_rows(rows: NDArray[Any]) -> NDArray[Any]:
    """Return the rows of all processes, concatenated in order of rank."""
    return np.concatenate(all_gather(rows))


def is_peer_lost(error: Exception) -> bool:
    """Return whether the error only means that another process has ended."""
    return isinstance(error, DistError) or (isinstance(error, RuntimeError) and "gloo/" in str(error))
