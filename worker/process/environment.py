"""What a trainer may know of its surroundings: an allow-list, so no address, password or key of ours is ever in it."""

import os
from collections.abc import Mapping, Sequence

from frs.isolation.jail import JAIL, NETWORK
from frs.isolation.process import PARENT
from worker.process.gpus import VISIBLE

ALLOWED = frozenset(
    {"PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "PYTHONPATH", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", NETWORK}
)
ALLOWED_PREFIX = "NVIDIA_"


def trainer_environment(ours: Mapping[str, str] = os.environ, gpus: Sequence[str] | None = None) -> dict[str, str]:
    """`gpus`: those it may use; None: this host has none to give."""
    allowed = {name: value for name, value in ours.items() if name in ALLOWED or name.startswith(ALLOWED_PREFIX)}
    chosen = {} if gpus is None else {VISIBLE: ",".join(gpus)}
    return {**allowed, **chosen, PARENT: str(os.getpid()), JAIL: "1"}
