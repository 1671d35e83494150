"""Speed of COCO evaluation relative to pycocotools: 100,000 detections in 2,000 images, one process each.

    python benchmarks/evaluation.py --json

Separate processes because `frs.detectors._mmdet_init` replaces pycocotools with faster-coco-eval. Both times are from
files on disk to metrics, without imports.
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
import pycocotools._mask  # a compiled module, so this is the real pycocotools
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

started = time.perf_counter()
truth = COCO(sys.argv[1])
rows = np.load(sys.argv[2])
rows[:, 6] += 1  # label to category
evaluation = COCOeval(truth, truth.loadRes(rows), "bbox")
evaluation.evaluate(), evaluation.accumulate(), evaluation.summarize()
print(json.dumps({"seconds": time.perf_counter() - started, "numbers": list(evaluation.stats)}))
"""

FRS = """
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
    options = parser.parse_args()
    result = measure(options.images, options.repeats)
    print(json.dumps(result) if options.json else "  ".join(f"{name} {value}" for name, value in result.items()))


def measure(images: int = IMAGES, repeats: int = 3) -> dict[str, Any]:
    """Return the median times in seconds, their ratio, and how many of the 12 metrics agree within 1e-9."""
    with tempfile.TemporaryDirectory() as folder:
        files = write(Path(folder), images)
        runs = [[_run(script, files) for script in (FRS, REFERENCE)] for _ in range(repeats)]
    frs_seconds, reference_seconds = (statistics.median(run[index]["seconds"] for run in runs) for index in (0, 1))
    equal = np.isclose(runs[0][0]["numbers"], runs[0][1]["numbers"], rtol=0, atol=1e-9)
    return {
        "ours": frs_seconds,
        "pycocotools": reference_seconds,
        "ratio": reference_seconds / frs_seconds,
        "equal": int(equal.sum()),
        "mAP": runs[0][1]["numbers"][0],
    }


def write(folder: Path, images: int) -> tuple[Path, Path]:
    """Write annotations with seven boxes per image and detections, near the boxes and at random; return both paths.

    The columns of the detections are image, x, y, width, height, score, label.
    """
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
    """Return boxes (count, 4) as left, top, width, height, in all COCO size ranges."""
    sides = np.exp(random.uniform(np.log(8), np.log(300), (count, 2)))
    return np.concatenate([random.uniform(0, SIDE - sides), sides], axis=1)


def _run(script: str, files: tuple[Path, Path]) -> Any:
    command = [sys.executable, "-c", script, *map(str, files)]
    completed = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(completed.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
