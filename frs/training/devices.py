"""Where a job runs."""

import torch

from frs.errors import DeviceUnavailable
from frs.spec import Resources


def choose_device(resources: Resources) -> torch.device:
    """Raises DeviceUnavailable when more GPUs are asked for than there are, or processes on the CPU beside a GPU."""
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if (resources.devices or 0) > found:
        raise DeviceUnavailable(f"{resources.devices} GPU(s) asked for, {found or 'none'} found.")
    if found and resources.processes > 1:
        raise DeviceUnavailable(
            "`resources.processes` is for the CPU, and there is a GPU.",
            "Set `resources.devices` to 0 for the CPU, or to as many GPUs instead of `processes`.",
        )
    return torch.device("cuda" if found else "cpu")


def loader_workers(resources: Resources, device: torch.device) -> int:
    if resources.loader_workers is not None:
        return resources.loader_workers
    return 4 if device.type == "cuda" else 0
