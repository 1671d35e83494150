"""Layouts of checkpoints: the entry that holds the tensors, and what wrappers add to the names of the tensors."""

from collections.abc import Collection, Mapping
from itertools import product
from typing import Any

from torch import Tensor

State = dict[str, Tensor]
CONTAINERS = ("state_dict", "model_state_dict", "ema_state_dict", "ema", "model", "module")
"""Entries that hold the tensors, best first; `ema` and `model` may hold another container. Where a trainer saves both,
the exponential moving average is what it evaluates."""
PREFIXES = ("module.", "_orig_mod.", "model.", "detector.", "student.", "architecture.", "teacher.")
"""Prefixes of tensor names, best first: of DataParallel, torch.compile and Lightning; and of mmrazor's distiller, whose
student is `architecture`."""
BACKBONE_PREFIXES = (*PREFIXES, "backbone.", "encoder.", "encoder_q.")
"""Prefixes in files of a backbone: also those of detectors and of self-supervised pre-training."""
MAX_NESTING = 3
"""Maximum number of containers in each other, and of prefixes in front of each other."""


def tensors_in(content: Mapping[Any, Any], nesting: int = MAX_NESTING) -> Mapping[Any, Any]:
    """Return the mapping of a checkpoint that holds the tensors; `content` itself if none of `CONTAINERS` does."""
    for name in CONTAINERS if nesting else ():
        inner = content.get(name)
        if isinstance(inner, Mapping):
            mapping = tensors_in(inner, nesting - 1)
            if any(isinstance(value, Tensor) for value in mapping.values()):
                return mapping
    return content


def without_wrappers(state: State, expected: Collection[str], prefixes: tuple[str, ...] = PREFIXES) -> State:
    """Return the tensors under the names `expected`, without a wrapper's prefix and without copies of an average.

    mmdetection 2 saves the average under the names of the module, and the last step's weights as `ema_backbone_...`.
    If no prefix makes all of `expected` present, `state` is returned unchanged.
    """
    for count in range(MAX_NESTING + 1):
        for prefix in map("".join, product(prefixes, repeat=count)):
            inner = {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}
            if inner.keys() >= set(expected):
                copies = {f"ema_{key.replace('.', '_')}" for key in inner}
                return {key: tensor for key, tensor in inner.items() if key not in copies}
    return state
