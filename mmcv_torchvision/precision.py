"""Choice of the dtype that an operator computes in."""

from functools import reduce

import torch
from torch import Tensor


def at_least_float32(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Return the tensors in one common dtype: float32, or float64 if any of them is.

    torchvision's kernels require a single dtype, and only some of them support half precision, while callers under
    autocast pass both. In float16, the area of a box overflows from 256 x 256 pixels.
    """
    dtype = reduce(torch.promote_types, (tensor.dtype for tensor in tensors), torch.float32)
    return tuple(tensor.to(dtype) for tensor in tensors)
