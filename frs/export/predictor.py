"""Run an exported file for the API: the path of an image per line on stdin, a JSON object per line on stdout.

    python -m frs.export.predictor student.onnx IDLE_SECONDS

The images come from users. Where the kernel allows it, the process has no network and writes nowhere; its memory and
open files are limited. The first line has the class names and the kind of isolation. An image that it cannot read is a
line with `unreadable`, one that the file cannot process a line with `failed`.
"""

from frs.isolation.early import JAIL

import json
import signal
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from frs.export.frs_runner import Detector, load_image
from frs.isolation import jail, resource_limits

FORMATS = ["JPEG", "PNG", "BMP", "WEBP"]
MAX_PIXELS = 50_000_000
THREADS = 1
MEMORY = 3 << 30
"""Bytes of address space beside the loaded file: an image of 50 million pixels in fp32, and its scaled copies."""
CPU_SECONDS = 86_400


def main() -> None:
    """Serve until stdin ends, or until no image has come for IDLE_SECONDS."""
    model, idle_seconds = Path(sys.argv[1]), int(sys.argv[2])
    detector = Detector(model, threads=THREADS, cpu=True, keep_memory=False)
    detector(np.zeros((64, 64, 3), np.uint8))  # the runtime starts its threads, which the limits then disable
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2  # Pillow refuses twice as many
    Image.init()  # imports its plug-ins before files are limited
    resource_limits.write_only_below(model.parent)  # which the API removes now
    resource_limits.limit_resources(memory=MEMORY, seconds=CPU_SECONDS, file_bytes=0)
    _print({"classes": detector.classes, "isolation": str(JAIL).replace("The trainer", "The process")})
    signal.alarm(idle_seconds)  # the default action of SIGALRM ends the process
    for line in sys.stdin:
        signal.alarm(0)
        _print(_predict(detector, Path(line.rstrip("\n"))))
        signal.alarm(idle_seconds)


def _predict(detector: Detector, path: Path) -> dict[str, object]:
    try:
        image = load_image(path, FORMATS)
    except Exception as error:  # a hostile image can make Pillow raise anything
        return {"unreadable": type(error).__name__}
    try:
        boxes, scores, labels = detector(image)
    except Exception as error:  # such as a lack of memory
        return {"failed": type(error).__name__}
    height, width = image.shape[:2]
    values = {"boxes": boxes.tolist(), "scores": scores.tolist(), "labels": labels.tolist()}
    return {"width": width, "height": height, **values}


def _print(value: dict[str, object]) -> None:
    print(json.dumps(value), flush=True)


if __name__ == "__main__":
    if JAIL is None:
        jail.restart_isolated()
    main()
