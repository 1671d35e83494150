"""Report what mmdet raises for a detector that cannot be built or run as an expected failure."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.distributed import DistError

from frs.errors import FrsError, UnsupportedDetector


@contextmanager
def unsupported_on_error(text: str) -> Iterator[None]:
    """Raise an unexpected error in the block as UnsupportedDetector: `text` and the error.

    Errors of memory, of the GPU and of other processes pass unchanged.
    """
    try:
        yield
    except (FrsError, MemoryError, torch.OutOfMemoryError, torch.AcceleratorError, DistError):
        raise
    except Exception as error:  # mmdet raises errors of any type
        if "DefaultCPUAllocator" in str(error) or "gloo" in str(error):
            raise
        reason = f"{type(error).__name__}: {str(error).strip()}".splitlines()[0][:300].rstrip(":. ")
        raise UnsupportedDetector(f"{text}: {reason}.") from error
