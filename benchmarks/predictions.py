"""Time and memory of predictions with an exported file over HTTP, beside the file run without the service.

    python benchmarks/predictions.py --json

The file is that of an EfficientNet-Lite0 student for 320 x 240, trained for one step, exported by a worker.
`cold`: the first image after the start of the API, which loads the file. `p50` and `p99`: the next images, 640 x 480,
one after the other. `runner`: the median of `frs_runner.py` with the same file and images. `growth`: resident memory of
the API and its processes at the end, less that after a tenth of the images. Times in seconds, memory in MB.
"""

import argparse
import json
import signal
import statistics
import tempfile
import time
from io import BytesIO
from pathlib import Path

import httpx2
import numpy as np
from latency import p99, wait_until
from PIL import Image
from service import Service, run_service
from steady import resident_mb

from frs.export import predictor
from frs.export.frs_runner import Detector, load_image

REQUESTS, WIDTH, HEIGHT = 200, 640, 480
STUDENT = {
    "architecture": "gfl",
    "backbone": {"type": "tf_efficientnet_lite0"},
    "neck_channels": 32,
    "stacked_convs": 1,
    "init": "random",
}
SCHEDULE = {"epochs": 1, "batch_size": 8, "image_size": [320, 240], "optimizer": {"name": "adamw"}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=REQUESTS)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    result = measure(options.requests)
    print(json.dumps(result) if options.json else "  ".join(f"{name} {value:.3f}" for name, value in result.items()))


def measure(requests: int = REQUESTS) -> dict[str, float]:
    """Return the measurements by name."""
    images = [_encode(number) for number in range(requests)]
    with run_service() as service, tempfile.TemporaryDirectory(prefix="frs-predictions-") as folder:
        with service.client() as client:
            student, file = _export(service, client)
            model = Path(folder) / "student.onnx"
            model.write_bytes(client.get(f"/jobs/{file}/artifacts/student.onnx").raise_for_status().content)
        service.api.stop(signal.SIGTERM)
        service.start_api()
        with service.client() as client:
            cold = _predict(client, student, images[0])
            warm = [_predict(client, student, image) for image in images[: requests // 10]]
            before = _memory(service)
            warm += [_predict(client, student, image) for image in images[requests // 10 :]]
            after = _memory(service)
        runner = statistics.median(_time_runner(model, images))
    p50 = statistics.median(warm)
    times = {"cold": cold, "p50": p50, "p99": p99(warm), "runner": runner, "ratio": p50 / runner}
    return times | {"mb": after, "growth": after - before, "requests": float(requests)}


def _encode(seed: int) -> bytes:
    """Return a JPEG of smooth colours."""
    colours = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    content = BytesIO()
    Image.fromarray(colours).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC).save(content, "JPEG")
    return content.getvalue()


def _export(service: Service, client: httpx2.Client) -> tuple[str, str]:
    """Train and export a student; return the ids of both jobs."""
    service.start("worker", "-m", "worker")
    spec = {"kind": "train", "dataset": "shapes", "student": STUDENT, "schedule": SCHEDULE}
    student = str(client.post("/jobs", json=spec).raise_for_status().json()["id"])
    export = str(client.post(f"/jobs/{student}/exports", json={"formats": ["onnx"]}).raise_for_status().json()["id"])
    wait_until(lambda: client.get(f"/jobs/{export}").json()["status"] not in ("queued", "running"), 600)
    job = client.get(f"/jobs/{export}").json()
    if job["status"] != "succeeded":
        raise RuntimeError(f"the export ended as {job['status']}: {job['error']}")
    service.processes["worker"].terminate()
    service.processes["worker"].wait()
    return student, export


def _predict(client: httpx2.Client, job: str, image: bytes) -> float:
    """Return the seconds of a request."""
    started = time.perf_counter()
    response = client.post(f"/jobs/{job}/predict", content=image, headers={"Content-Type": "image/jpeg"})
    seconds = time.perf_counter() - started
    response.raise_for_status()
    return seconds


def _memory(service: Service) -> float:
    """Return the resident memory of the API and its child processes in MB."""
    api = service.processes["api"].pid
    children = [
        int(child) for task in Path(f"/proc/{api}/task").iterdir() for child in (task / "children").read_text().split()
    ]
    return sum(map(resident_mb, [api, *children]))


def _time_runner(model: Path, images: list[bytes]) -> list[float]:
    """Return the seconds of each image with `frs_runner.py`."""
    detector, path, seconds = Detector(model, threads=predictor.THREADS, cpu=True), model.with_name("image.jpg"), []
    for image in images:
        path.write_bytes(image)
        started = time.perf_counter()
        detector(load_image(path))
        seconds.append(time.perf_counter() - started)
    return seconds


if __name__ == "__main__":
    main()
