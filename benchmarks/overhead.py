"""Processor seconds of the API and the worker over the trainer's, in a real small distillation through `frs up`.

    python benchmarks/overhead.py --json

From the moment the trainer is there to its end, with a user asking for the job every two seconds. On the CPU.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from service import ROOT, free_port

from cli.client import Client
from frs.dataset.shapes.drawing import draw_dataset

EPOCHS = 12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    measured = measure(asked.epochs)
    print(json.dumps(measured) if asked.json else "  ".join(f"{name} {value}" for name, value in measured.items()))


def measure(epochs: int = EPOCHS) -> dict[str, Any]:
    """Processor seconds of the three, and `share`, those of the service over the trainer's."""
    with tempfile.TemporaryDirectory(prefix="frs-load-") as folder:
        data = Path(folder)
        draw_dataset(data / "datasets" / "shapes", train=64, val=8, size=160)
        command = [sys.executable, "-m", "cli", "up", "--data", folder, "--port", str(free_port())]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)
        try:
            assert process.stdout
            process.stdout.readline()
            return _measure(data, process.pid, epochs)
        finally:
            process.terminate()
            process.wait(60)


def _measure(data: Path, pid: int, epochs: int) -> dict[str, Any]:
    client = Client.here(data)
    client.post("/datasets", {"name": "shapes"})
    api, worker = (_child(pid, f"-m {name}") for name in ("api", "worker"))
    job_id = client.post("/jobs", _spec(epochs))["id"]
    while (trainer := _child(worker, "train")) == 0:
        time.sleep(0.05)
    before = {name: _seconds(other) for name, other in (("api", api), ("worker", worker))}
    began, spent, ask_at = time.monotonic(), 0.0, 0.0
    while Path(f"/proc/{trainer}").exists():
        spent = max(spent, _seconds(trainer, loaders=True))
        if time.monotonic() > ask_at:
            client.get(f"/jobs/{job_id}")
            ask_at = time.monotonic() + 2
        time.sleep(0.1)
    took = time.monotonic() - began
    used = {name: _seconds(other) - before[name] for name, other in (("api", api), ("worker", worker))}
    share = (used["api"] + used["worker"]) / spent
    status = client.get(f"/jobs/{job_id}")["status"]
    return {"share": share, **used, "trainer": spent, "seconds": took, "status": status}


def _spec(epochs: int) -> dict[str, Any]:
    small = {"architecture": "gfl", "backbone": {"depth": 18, "width": 16, "norm": "gn"}, "stacked_convs": 1}
    schedule = {"epochs": epochs, "batch_size": 8, "image_size": [160, 160], "optimizer": {"name": "adamw"}}
    sides = {"student": small | {"neck_channels": 32}, "teacher": small | {"neck_channels": 64}}
    return {
        "kind": "distill",
        "dataset": "shapes",
        "schedule": schedule,
        "distillation": {"accept_weak_teacher": True},
        **sides,
    }


def _child(parent: int, said: str) -> int:
    """The child process with these words on its command line; 0: none yet."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if int(_stat(folder)[1]) == parent and said in line:
                return int(folder.name)
        except OSError:
            continue
    return 0


def _seconds(pid: int, *, loaders: bool = False) -> float:
    """Of the process itself, or with those it has waited for; 0 when it has ended."""
    try:
        return sum(map(int, _stat(Path(f"/proc/{pid}"))[11 : 15 if loaders else 13])) / os.sysconf("SC_CLK_TCK")
    except OSError:
        return 0.0


def _stat(folder: Path) -> list[str]:
    """What follows the name: state, parent, ..., utime, stime, cutime and cstime at 11 to 14."""
    return (folder / "stat").read_text().rpartition(")")[2].split()


if __name__ == "__main__":
    main()
