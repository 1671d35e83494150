"""CPU time of the API and the worker relative to the trainer's, for a small distillation job with `frs up`.

    python benchmarks/overhead.py --json

Measured from the start of the trainer to its end, with a client requesting the job every two seconds. Trains on the
CPU.
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

from servers import ROOT, free_port

from frs.dataset.shapes.drawing import draw_dataset
from frs_client import Client

EPOCHS = 12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    result = measure(options.epochs)
    print(json.dumps(result) if options.json else "  ".join(f"{name} {value}" for name, value in result.items()))


def measure(epochs: int = EPOCHS) -> dict[str, Any]:
    """Return the CPU seconds of API, worker and trainer, and `share`: API and worker relative to the trainer."""
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
    client = Client(data=data)
    client.post("/datasets", {"name": "shapes"})
    api, worker = (_child(pid, f"-m {name}") for name in ("api", "worker"))
    job_id = client.post("/jobs", _spec(epochs))["id"]
    while (trainer := _child(worker, "train")) == 0:
        time.sleep(0.05)
    before = {name: _cpu_seconds(process_id) for name, process_id in (("api", api), ("worker", worker))}
    started, spent, next_request = time.monotonic(), 0.0, 0.0
    while Path(f"/proc/{trainer}").exists():
        spent = max(spent, _cpu_seconds(trainer, loaders=True))
        if time.monotonic() > next_request:
            client.get(f"/jobs/{job_id}")
            next_request = time.monotonic() + 2
        time.sleep(0.1)
    duration = time.monotonic() - started
    used = {name: _cpu_seconds(process_id) - before[name] for name, process_id in (("api", api), ("worker", worker))}
    share = (used["api"] + used["worker"]) / spent
    status = client.get(f"/jobs/{job_id}")["status"]
    return {"share": share, **used, "trainer": spent, "seconds": duration, "status": status}


def _spec(epochs: int) -> dict[str, Any]:
    small = {"architecture": "gfl", "backbone": {"depth": 18, "width": 16, "norm": "gn"}, "stacked_convs": 1}
    schedule = {"epochs": epochs, "batch_size": 8, "image_size": [160, 160], "optimizer": {"name": "adamw"}}
    detectors = {"student": small | {"neck_channels": 32}, "teacher": small | {"neck_channels": 64}}
    return {
        "kind": "distill",
        "dataset": "shapes",
        "schedule": schedule,
        "distillation": {"accept_weak_teacher": True},
        **detectors,
    }


def _child(parent: int, words: str) -> int:
    """Return the id of the child process with `words` on its command line, 0 if there is none."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if int(_stat(folder)[1]) == parent and words in line:
                return int(folder.name)
        except OSError:
            continue
    return 0


def _cpu_seconds(pid: int, *, loaders: bool = False) -> float:
    """Return the CPU time of a process, with `loaders` including its ended children; 0 if the process has ended."""
    try:
        return sum(map(int, _stat(Path(f"/proc/{pid}"))[11 : 15 if loaders else 13])) / os.sysconf("SC_CLK_TCK")
    except OSError:
        return 0.0


def _stat(folder: Path) -> list[str]:
    """Return the fields of /proc/PID/stat after the name: state, parent, ...; utime to cstime are 11 to 14."""
    return (folder / "stat").read_text().rpartition(")")[2].split()


if __name__ == "__main__":
    main()
