"""The environment variables of a trainer: an allow-list, so that no address, password or key reaches it."""

import os
from collections.abc import Mapping, Sequence

from frs.isolation.jail import JAIL, NETWORK
from frs.isolation.process import PARENT
from worker.process.gpus import VISIBLE

CACHES = frozenset({"XDG_CACHE_HOME", "TORCH_HOME", "HF_HOME", "HF_HUB_CACHE"})
"""Variables that name the folders in which `frs.published_weights` finds weights."""
MEETING_PLACE = frozenset({f"{prefix}MASTER_{name}" for prefix in ("", "PET_") for name in ("ADDR", "PORT")})
"""Variables, torchrun's, that name the first host of a job on several."""
ALLOWED = (
    CACHES
    | MEETING_PLACE
    | {
        "PET_LOCAL_ADDR",
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
)
"""Variables that a trainer inherits."""
ALLOWED_PREFIXES = ("NVIDIA_", "NCCL_", "GLOO_")
"""Prefixes of further variables that a trainer inherits."""


def trainer_environment(
    environment: Mapping[str, str] = os.environ, gpus: Sequence[str] | None = None, network: bool = False
) -> dict[str, str]:
    """Return the variables that a trainer gets.

    `gpus` are the GPUs that it may use; None means that this host has none, and CUDA_VISIBLE_DEVICES stays as it is.
    With `network`, it may use the network whatever the operator's setting.
    """
    allowed = {
        name: value for name, value in environment.items() if name in ALLOWED or name.startswith(ALLOWED_PREFIXES)
    }
    visible = {} if gpus is None else {VISIBLE: ",".join(gpus)}
    reachable = {NETWORK: "1"} if network else {}
    return {**allowed, **visible, **reachable, PARENT: str(os.getpid()), JAIL: "1"}
