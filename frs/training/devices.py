"""Choose the device and the number of loader workers of a job."""

import torch

from frs.errors import DeviceUnavailable
from frs.spec import Resources


def choose_device(resources: Resources) -> torch.device:
    """Return the GPU device if there is a GPU, else the CPU.

    Raises DeviceUnavailable if the spec requests more GPUs than there are, or CPU processes on a machine with a GPU.
    """
    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if (resources.devices or 0) > available:
        raise DeviceUnavailable(
            f"`resources.devices` requests {resources.devices} GPU(s), and {available or 'none'} are available."
        )
    if available and resources.processes > 1:
        raise DeviceUnavailable(
            "`resources.processes` applies to CPU training, and this machine has a GPU.",
            "Set `resources.devices` to 0 to train on the CPU, or to the number of GPUs instead of `processes`.",
        )
    return torch.device("cuda" if available else "cpu")


def loader_workers(resources: Resources, device: torch.device) -> int:
    """Return the number of data loader workers: the spec's, else 4 with a GPU and 0 on the CPU."""
    if resources.loader_workers is not None:
        return resources.loader_workers
    return 4 if device.type == "cuda" else 0
