"""Which dtype an operator computes in."""

from functools import reduce

import torch
from torch import Tensor


def at_least_float32(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors in one common dtype: float32, or float64 if any of them is.

    torchvision's kernels want one dtype and know half precision only here and there, while callers under autocast hand
    in both; and areas of boxes overflow float16 from 256 pixels square.
    """
    dtype = reduce(torch.promote_types, (tensor.dtype for tensor in tensors), torch.float32)
    return tuple(tensor.to(dtype) for tensor in tensors)
