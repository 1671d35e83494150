#!/usr/bin/env python3
"""Detect objects with an exported student: needs numpy, Pillow and onnxruntime, nothing else.

    python frs_runner.py student.onnx image.jpg --save out.jpg
    python frs_runner.py student.onnx folder/*.jpg --json > detections.jsonl

In a program:

    detector = Detector("student.onnx")
    boxes, scores, labels = detector(load_image("image.jpg"))
    print([detector.classes[label] for label in labels])
"""

from __future__ import annotations

import argparse
import io
import json
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

Array = np.ndarray[Any, Any]
MAX_PIXELS = 100_000_000
"""Larger images are refused: a small file can unpack to many gigabytes."""
MIN_SIDE = 2
"""Shortest side in pixels that training scales an image to."""
TURNED = ("JPEG", "MPO", "PNG")
"""Formats of which OpenCV, which training reads images with, applies the EXIF orientation."""
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns an image upright, by its EXIF orientation."""
PICTURES = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
"""Formats that pictures are written in, by the suffix of the file."""


class Detector:
    """An exported detector."""

    def __init__(self, path: str | Path, threads: int = 0, *, cpu: bool = False, keep_memory: bool = True) -> None:
        """Load the file at `path`; `threads` is the number of CPU threads, 0 for all cores.

        `cpu`: do not use other devices that onnxruntime supports. `keep_memory`: keep the memory of the largest image
        so far for the next ones.
        """
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.enable_cpu_mem_arena = keep_memory
        providers = ["CPUExecutionProvider"] if cpu else onnxruntime.get_available_providers()
        self.session = onnxruntime.InferenceSession(str(path), options, providers=providers)
        metadata = self.session.get_modelmeta().custom_metadata_map
        self.metadata = {key: json.loads(value) for key, value in metadata.items()}
        self.classes = self.metadata["classes"]
        names = ("score_threshold", "iou_threshold", "max_detections", "best_class_only", "clip")
        has_nms = self.metadata.get("format") != "onnx-no-nms"
        self.settings = {} if has_nms else {name: self.metadata[name] for name in names}
        """Arguments of `choose`, for a file without NMS."""

    def __call__(self, image: Array) -> tuple[Array, Array, Array]:
        """Return boxes (N, 4), scores (N,) and labels (N,) of an RGB image (height, width, 3), uint8.

        Boxes are x1, y1, x2, y2 in pixels of the image, the highest scores first.
        """
        if self.settings:
            return self._detect_without_nms(image)
        boxes, scores, labels = self.session.run(["boxes", "scores", "labels"], {"image": image})
        return boxes, scores, labels

    def _detect_without_nms(self, image: Array) -> tuple[Array, Array, Array]:
        """Do what a file without NMS leaves to its user."""
        frame, scale = fit(image, *(self.metadata[name] for name in ("scaled_size", "input_size", "pad")))
        batch = frame.transpose(2, 0, 1)[None]  # of one image; a file takes any number
        corners, scores = self.session.run(["boxes", "scores"], {"images": batch})
        return choose(corners[0] / np.tile(scale, 2), scores[0], image.shape[1::-1], **self.settings)


def choose(
    boxes: Array,
    scores: Array,
    size: tuple[int, int],
    score_threshold: float,
    iou_threshold: float,
    max_detections: int,
    best_class_only: bool,
    clip: bool,
) -> tuple[Array, Array, Array]:
    """Return the detections among the boxes (P, 4) and scores (P, K) of an image of `size`, [width, height]."""
    candidates = scores > score_threshold
    if best_class_only:
        candidates &= np.arange(scores.shape[1]) == scores.argmax(axis=1)[:, None]
    rows, labels = np.nonzero(candidates)
    corners = (np.clip(boxes[rows], 0, np.tile(size, 2)) if clip else boxes[rows]).astype(np.float32)
    inside = (corners[:, 2:] > corners[:, :2]).all(axis=1)
    corners, rows, labels = corners[inside], rows[inside], labels[inside]
    kept = suppress(corners, scores[rows, labels], labels, iou_threshold, max_detections)
    return corners[kept], scores[rows, labels][kept], labels[kept]


def fit(image: Array, size: list[int], input_size: list[int], pad: list[float]) -> tuple[Array, Array]:
    """Return the image scaled into `size`, at the top left of an input (height, width, 3), fp32, and its factors.

    Sizes and factors are [width, height]. The aspect ratio is kept; `pad` is the colour of the rest.
    """
    old = np.array(image.shape[1::-1])
    width, height = (max(MIN_SIDE, int(side * min(size / old) + 0.5)) for side in old)
    frame = np.empty((input_size[1], input_size[0], 3), np.float32)
    frame[:] = pad
    frame[:height, :width] = resize(image, width, height)
    return frame, (np.array([width, height]) / old).astype(np.float32)


def resize(image: Array, width: int, height: int) -> Array:
    """Return the image scaled with bilinear interpolation, as OpenCV does it, rounded, fp32."""
    pixels = image.astype(np.float32)
    for axis, new in ((0, height), (1, width)):
        old = pixels.shape[axis]
        centres = (np.arange(new, dtype=np.float32) + 0.5) * (old / new) - 0.5
        lower = np.floor(centres)
        share = (centres - lower).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
        first, second = (np.take(pixels, np.clip(lower + i, 0, old - 1).astype(int), axis) for i in (0, 1))
        pixels = first * (1 - share) + second * share
    return np.floor(pixels + 0.5)


def suppress(boxes: Array, scores: Array, labels: Array, iou_threshold: float, limit: int) -> Array:
    """Return the rows that NMS within each class keeps, the highest scores first, at most `limit` (-1: all)."""
    order = np.argsort(-scores, kind="stable")
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    kept: list[int] = []
    while len(order) and len(kept) != limit:
        best, order = order[0], order[1:]
        kept.append(best)
        sides = np.minimum(boxes[best, 2:], boxes[order, 2:]) - np.maximum(boxes[best, :2], boxes[order, :2])
        shared = np.prod(np.clip(sides, 0, None), axis=1)
        overlaps = shared > iou_threshold * (areas[best] + areas[order] - shared)
        order = order[~overlaps | (labels[order] != labels[best])]
    return np.array(kept, int)


def load_image(path: str | Path, formats: list[str] | None = None) -> Array:
    """Return the image as (height, width, 3), uint8, RGB, turned upright as its EXIF data says, as OpenCV reads it.

    `formats` are the names of the formats that Pillow may read; None: all.
    """
    with Image.open(path, formats=formats) as file:
        if file.width * file.height > MAX_PIXELS:
            raise ValueError(f"{path} has {file.width} x {file.height} pixels, more than {MAX_PIXELS}")
        image = turn(file) if file.format in TURNED else file
        if image.mode.startswith("I"):  # 16 bits, of which training reads the high byte; Pillow would clip them
            grey = (np.asarray(image) >> 8).astype(np.uint8)
            return np.stack([grey] * 3, axis=2)
        return np.asarray(image.convert("RGB"))


def turn(image: Image.Image) -> Image.Image:
    """Return the image turned upright by its EXIF tag alone: unlike Pillow, OpenCV does not look into XMP data."""
    image.load()  # the EXIF data of a PNG may follow its pixels
    exif = Image.Exif()
    try:
        exif.load(image.info.get("exif", b""))
        orientation = int(exif.get(0x0112, 1))
    except Exception:  # malformed data turn nothing
        orientation = 1
    return image.transpose(TURNS[orientation]) if orientation in TURNS else image


def draw(image: Array, boxes: Array, scores: Array, labels: Array, classes: list[str]) -> Image.Image:
    """Return the image with boxes, class names and scores, as a Pillow image."""
    picture = Image.fromarray(image)
    canvas = ImageDraw.Draw(picture)
    width = max(1, round(max(picture.size) / 400))
    for box, score, label in zip(boxes.tolist(), scores, labels, strict=True):
        color = f"hsl({(int(label) * 137) % 360}, 90%, 45%)"
        canvas.rectangle(box, outline=color, width=width)
        text = f"{classes[label]} {score:.2f}"
        place = (box[0], max(0, box[1] - 12))
        canvas.rectangle(canvas.textbbox(place, text), fill=color)
        canvas.text(place, text, fill="white")
    return picture


def peak_megabytes() -> float | None:
    """Return the largest memory that this process has used, in MB; None where the system does not say."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6


def is_picture(path: Path) -> bool:
    """Return whether the suffix is that of a format that pictures are written in."""
    return Image.registered_extensions().get(path.suffix.lower()) in PICTURES


def why_not_saved(picture: Path, image: Path) -> str:
    """Return why the picture of an image cannot be written to the file `picture`; empty if it can."""
    if not is_picture(picture):
        return f"{picture} has no suffix of a picture, such as .png or .jpg"
    if not picture.parent.is_dir():
        return f"there is no folder {picture.parent}"
    return f"{picture} would overwrite the image" if picture.resolve() == image.resolve() else ""


def free_name(name: str, used: Counter[str]) -> str:
    """Return the name, with a number if `used` has it already, and add it to `used`. Case does not matter."""
    path, free = Path(name), name
    while used[free.lower()]:
        used[name.lower()] += 1
        free = f"{path.stem}-{used[name.lower()]}{path.suffix}"
    used[free.lower()] += 1
    return free


def parse_arguments() -> argparse.Namespace:
    """Return the options of the command line; end with status 2 if they are invalid."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="exported file (.onnx)")
    parser.add_argument(
        "images", type=Path, nargs="*", help="images; default: paths from standard input, with --save all of them first"
    )
    parser.add_argument("--threshold", type=float, default=0.3, help="lowest score (default 0.3)")
    parser.add_argument("--save", type=Path, help="file, or folder for several images, of the images with boxes")
    parser.add_argument("--json", action="store_true", help="print one JSON object per image")
    parser.add_argument("--cpu", action="store_true", help="use the CPU, also if onnxruntime supports other devices")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0: all cores")
    options = parser.parse_args()
    options.images = options.images or (Path(line.rstrip("\n")) for line in sys.stdin)
    save = options.save
    if save:
        options.images = list(options.images)  # a picture must overwrite none of them
    options.into_folder = bool(save) and (save.is_dir() or not save.suffix)
    if options.into_folder:
        if any(save.resolve() in (path.parent.resolve(), path.resolve().parent) for path in options.images):
            parser.error(f"--save: pictures would overwrite the images in {save}; name another folder")
        try:
            save.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            parser.error(f"--save: {error}")
    elif save and len(options.images) != 1:
        parser.error("--save needs a folder for several images; one whose name has a dot must exist")
    elif save and (reason := why_not_saved(save, options.images[0])):
        parser.error(f"--save: {reason}; a folder whose name has a dot must exist")
    return options


def main() -> int:
    """Run the command line and return its exit status."""
    options = parse_arguments()
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # end quietly under `| head`
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # class names in a script that the terminal lacks
    detector = Detector(options.model, options.threads, cpu=options.cpu)
    failed = 0
    used_names: Counter[str] = Counter()
    for path in options.images:
        try:
            image = load_image(path)
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            print(f"{path}: {error}", file=sys.stderr)
            if options.json:
                print(json.dumps({"image": str(path), "error": str(error)}), flush=True)
            failed += 1
            continue
        started = time.perf_counter()
        boxes, scores, labels = detector(image)
        milliseconds = 1000 * (time.perf_counter() - started)
        chosen = scores >= options.threshold
        boxes, scores, labels = boxes[chosen], scores[chosen], labels[chosen]
        if options.json:
            values = {"boxes": boxes.tolist(), "scores": scores.tolist(), "labels": labels.tolist()}
            print(json.dumps({"image": str(path), **values, "ms": milliseconds}), flush=True)
        else:
            print(f"{path}: {len(boxes)} objects in {milliseconds:.1f} ms")
            for box, score, label in zip(boxes, scores, labels, strict=True):
                print(f"  {detector.classes[label]:20} {score:.3f}  " + " ".join(f"{side:.0f}" for side in box))
        if options.save:
            target = options.save
            if options.into_folder:
                target = target / free_name(path.name if is_picture(path) else f"{path.name}.png", used_names)
            try:
                if target.exists() and target.samefile(path):
                    raise ValueError(f"{target} would overwrite the image")
                draw(image, boxes, scores, labels, detector.classes).save(target)
            except (OSError, ValueError) as error:
                print(f"{path}: {error}", file=sys.stderr)
                failed += 1
    if options.json:
        print(json.dumps({"peak_mb": peak_megabytes()}))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
