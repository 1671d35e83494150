"""Time and peak memory of the data set check on a data set of the size of COCO 2017.

    python benchmarks/dataset_check.py --json

118,287 images and 860,000 boxes with polygons as long as COCO's: an annotation file of about 450 MB. The image files
are hard links to a few images: the check reads the header of each, as with different images in a warm page cache.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.progress import track

IMAGES, BOXES, CLASSES = 118_287, 860_000, 80
SIZES = ((640, 480), (480, 640), (640, 427), (500, 375), (640, 640))
LINKS = 20_000
"""Maximum number of hard links per file; file systems limit it (ext4: 65,000)."""
NUMBERS = 52
"""Average number of coordinates per polygon; gives the file the size of COCO's."""

CHECK = """
import json, sys, time
from pathlib import Path
from frs.dataset.check import check_split

started = time.perf_counter()
report = check_split(Path(sys.argv[1]), Path(sys.argv[2]))
seconds = time.perf_counter() - started
peak = int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) * 1024  # ru_maxrss is inherited
print(json.dumps({"seconds": seconds, "peak_bytes": peak, "issues": dict(report.issue_counts),
                  "images": report.counts.images, "boxes": report.counts.boxes, "depth": report.depth}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--boxes", type=int, default=BOXES)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    result = measure(options.images, options.boxes, quiet=options.json)
    print(json.dumps(result) if options.json else "  ".join(f"{name} {value}" for name, value in result.items()))


def measure(images: int = IMAGES, boxes: int = BOXES, quiet: bool = False) -> dict[str, Any]:
    """Return the time in seconds, the peak memory in bytes and the counts of the check."""
    with tempfile.TemporaryDirectory() as folder:
        image_folder, annotations = Path(folder) / "train", Path(folder) / "instances_train.json"
        _link_images(image_folder, images)
        _write_annotations(annotations, images, boxes, quiet)
        completed = subprocess.run(
            [sys.executable, "-c", CHECK, str(image_folder), str(annotations)],
            capture_output=True,
            text=True,
            check=True,
        )
        return json.loads(completed.stdout) | {"file_bytes": annotations.stat().st_size}


def _link_images(folder: Path, images: int) -> None:
    folder.mkdir()
    random, source = np.random.default_rng(0), folder
    for number in range(images):
        size = SIZES[number % len(SIZES)]
        if number % (len(SIZES) * LINKS) < len(SIZES):
            image = Image.fromarray(random.integers(0, 255, (size[1] // 8, size[0] // 8, 3), dtype=np.uint8))
            image.resize(size).save(folder / _name(number), "JPEG")
        else:
            source = folder / _name(number - number % (len(SIZES) * LINKS) + number % len(SIZES))
            os.link(source, folder / _name(number))


def _name(number: int) -> str:
    return f"{number + 1:012d}.jpg"


def _write_annotations(path: Path, images: int, boxes: int, quiet: bool) -> None:
    categories = [{"supercategory": "thing", "id": k + 1, "name": f"class {k}"} for k in range(CLASSES)]
    with path.open("w") as file:
        file.write('{"info": {"description": "as COCO 2017"}, "licenses": [], "images": [')
        file.writelines(_joined(map(_image, range(images))))
        file.write('], "annotations": [')
        entries = track(_annotations(images, boxes), "Writing", boxes, disable=quiet, transient=True)
        file.writelines(_joined(entries))
        file.write(f'], "categories": {json.dumps(categories)}}}')


def _joined(entries: Any) -> Iterator[str]:
    for number, entry in enumerate(entries):
        yield f", {entry}" if number else entry


def _image(number: int) -> str:
    width, height = SIZES[number % len(SIZES)]
    url = f"http://images.cocodataset.org/train2017/{_name(number)}"
    entry = {"license": 3, "file_name": _name(number), "coco_url": url, "height": height, "width": width}
    entry |= {
        "date_captured": "2013-11-14 11:18:45",
        "flickr_url": f"http://farm9.staticflickr.com/8186/{number}_z.jpg",
    }
    return json.dumps(entry | {"id": number})


def _annotations(images: int, boxes: int) -> Iterator[str]:
    """Yield annotations as JSON. Polygons are slices of one list of coordinates; generating each would take minutes."""
    random = np.random.default_rng(0)
    coordinates = [f"{value:.2f}" for value in random.uniform(0, 640, 100_000)]
    lengths, starts = random.geometric(1 / NUMBERS, boxes) + 5, random.integers(0, 99_000, boxes)
    corners, extents = random.uniform(0, 200, (boxes, 2)).round(2), random.uniform(4, 170, (boxes, 2)).round(2)
    columns = (lengths.clip(max=900).tolist(), starts.tolist(), corners.tolist(), extents.tolist())
    for number, (length, start, (x, y), (w, h)) in enumerate(zip(*columns, strict=True)):
        polygon = ",".join(coordinates[start : start + length])
        yield (
            f'{{"segmentation": [[{polygon}]],"area": {w * h * 0.6:.4f},"iscrowd": 0,"image_id": {number % images},'
            f'"bbox": [{x},{y},{w},{h}],"category_id": {number % CLASSES + 1},"id": {number + 1}}}'
        )


if __name__ == "__main__":
    main()
