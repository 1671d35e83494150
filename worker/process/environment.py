"""The environment variables of a trainer: an allow-list, so that no address, password or key reaches it."""

import os
from collections.abc import Mapping, Sequence

from frs.isolation.jail import JAIL, NETWORK
from frs.isolation.process import PARENT
from worker.process.gpus import VISIBLE

CACHES = frozenset({"XDG_CACHE_HOME", "TORCH_HOME", "HF_HOME", "HF_HUB_CACHE"})
"""Variables that name the folders in which `frs.published_weights` finds weights."""
ALLOWED = CACHES | {
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TMPDIR",
    "PYTHONPATH",
    "CUDA_VISIBLE_DEVICES",
    "OMP_NUM_THREADS",
    NETWORK,
}
"""Variables that a trainer inherits."""
ALLOWED_PREFIX = "NVIDIA_"
"""Prefix of further variables that a trainer inherits."""


def trainer_environment(
    environment: Mapping[str, str] = os.environ, gpus: Sequence[str] | None = None
) -> dict[str, str]:
    """Return the variables that a trainer gets.

    `gpus` are the GPUs that it may use; None means that this host has none, and CUDA_VISIBLE_DEVICES stays as it is.
    """
    allowed = {name: value for name, value in environment.items() if name in ALLOWED or name.startswith(ALLOWED_PREFIX)}
    visible = {} if gpus is None else {VISIBLE: ",".join(gpus)}
    return {**allowed, **visible, PARENT: str(os.getpid()), JAIL: "1"}
