"""COCO evaluation against pycocotools: 100,000 detections in 2,000 images, each side in a process of its own.

    python benchmarks/evaluation.py --json

A process of its own because `frs.detectors._mmdet_init` puts faster-coco-eval in pycocotools' place. Both times are from files on disk
to numbers, imports left out.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

IMAGES, PER_IMAGE, CLASSES, SIDE = 2_000, 50, 80, 640

REFERENCE = """
import json, sys, time
import numpy as np
import pycocotools._mask  # compiled, so this is no stand-in
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

started = time.perf_counter()
known = COCO(sys.argv[1])
rows = np.load(sys.argv[2])
rows[:, 6] += 1  # label to category
evaluation = COCOeval(known, known.loadRes(rows), "bbox")
evaluation.evaluate(), evaluation.accumulate(), evaluation.summarize()
print(json.dumps({"seconds": time.perf_counter() - started, "numbers": list(evaluation.stats)}))
"""

OURS = """
import json, sys, time
from pathlib import Path
import numpy as np
from frs.dataset.coco import read
from frs.evaluation.coco_scores import run_evaluation

started = time.perf_counter()
evaluation = run_evaluation(np.load(sys.argv[2]), read(Path(sys.argv[1])))
print(json.dumps({"seconds": time.perf_counter() - started, "numbers": list(evaluation.stats[:12])}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    measured = measure(asked.images, asked.repeats)
    print(json.dumps(measured) if asked.json else "  ".join(f"{name} {value}" for name, value in measured.items()))


def measure(images: int = IMAGES, repeats: int = 3) -> dict[str, Any]:
    """Median seconds of each, their ratio, and how many of the twelve numbers are equal to 1e-9."""
    with tempfile.TemporaryDirectory() as folder:
        files = write(Path(folder), images)
        runs = [[_run(script, files) for script in (OURS, REFERENCE)] for _ in range(repeats)]
    ours, reference = (statistics.median(run[side]["seconds"] for run in runs) for side in (0, 1))
    equal = np.isclose(runs[0][0]["numbers"], runs[0][1]["numbers"], rtol=0, atol=1e-9)
    return {
        "ours": ours,
        "pycocotools": reference,
        "ratio": reference / ours,
        "equal": int(equal.sum()),
        "mAP": runs[0][1]["numbers"][0],
    }


def write(folder: Path, images: int) -> tuple[Path, Path]:
    """An annotation file of seven boxes an image, and detections (image, x, y, w, h, score, label): near boxes and anywhere."""
    random = np.random.default_rng(0)
    truth = _boxes(random, images * 7)
    image, label = np.repeat(np.arange(images), 7), random.integers(0, CLASSES, len(truth))
    document = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "width": SIDE, "height": SIDE} for i in range(images)],
        "categories": [{"id": k + 1, "name": f"class {k}"} for k in range(CLASSES)],
        "annotations": [
            {"id": n, "image_id": i, "category_id": k + 1, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
            for n, (i, k, box) in enumerate(zip(image.tolist(), label.tolist(), truth.tolist(), strict=True), 1)
        ],
    }
    (folder / "truth.json").write_text(json.dumps(document))
    near = np.repeat(np.arange(len(truth)), 3)
    anywhere = images * PER_IMAGE - len(near)
    boxes = np.concatenate([truth[near] + random.normal(0, 4, (len(near), 4)), _boxes(random, anywhere)])
    boxes[:, 2:] = boxes[:, 2:].clip(1)
    images_of = np.concatenate([image[near], random.integers(0, images, anywhere)])
    labels = np.concatenate([label[near], random.integers(0, CLASSES, anywhere)])
    np.save(folder / "rows.npy", np.column_stack([images_of, boxes, random.random(len(boxes)), labels]))
    return folder / "truth.json", folder / "rows.npy"


def _boxes(random: np.random.Generator, count: int) -> Any:
    """(count, 4) left, top, width, height, of all of COCO's sizes."""
    sides = np.exp(random.uniform(np.log(8), np.log(300), (count, 2)))
    return np.concatenate([random.uniform(0, SIDE - sides), sides], axis=1)


def _run(script: str, files: tuple[Path, Path]) -> Any:
    command = [sys.executable, "-c", script, *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
