"""Write the blood cells of the measurements, BCCD, in COCO layout: `python benchmarks/bccd.py CHECKOUT DATA/bccd`.

CHECKOUT is a clone of https://github.com/Shenggan/BCCD_Dataset (MIT licence) at commit d272fb1: 364 photographs with
Pascal VOC annotations, whose lists divide them into 205 training, 87 validation and 72 test images.
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

CLASSES = ("RBC", "WBC", "Platelets")
"""Red and white blood cells, and platelets; the id of a category is its place here, from 1."""


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    source, target = Path(sys.argv[1]) / "BCCD", Path(sys.argv[2])
    (target / "annotations").mkdir(parents=True, exist_ok=True)
    for split in ("train", "val", "test"):
        names = sorted((source / "ImageSets" / "Main" / f"{split}.txt").read_text().split())
        (target / split).mkdir(exist_ok=True)
        for name in names:
            shutil.copy(source / "JPEGImages" / f"{name}.jpg", target / split)
        document = coco_document([source / "Annotations" / f"{name}.xml" for name in names])
        (target / "annotations" / f"instances_{split}.json").write_text(json.dumps(document))
        print(split, len(document["images"]), "images,", len(document["annotations"]), "boxes")


def coco_document(files: list[Path]) -> dict[str, Any]:
    """Return the COCO document of annotation files. Their corners count from 1 and include the last pixel.

    The two boxes of a single pixel that BCCD contains are left out.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for file in files:
        root = ElementTree.parse(file).getroot()
        width, height = (int(root.findtext(f"size/{side}", "")) for side in ("width", "height"))
        images.append({"id": len(images) + 1, "file_name": f"{file.stem}.jpg", "width": width, "height": height})
        for item in root.iter("object"):
            left, top, right, bottom = (
                float(item.findtext(f"bndbox/{side}", "")) for side in ("xmin", "ymin", "xmax", "ymax")
            )
            if right == left or bottom == top:
                continue
            box = [left - 1, top - 1, right - left + 1, bottom - top + 1]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": len(images),
                    "category_id": CLASSES.index(item.findtext("name", "")) + 1,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": 0,
                }
            )
    categories = [{"id": number, "name": name} for number, name in enumerate(CLASSES, 1)]
    return {"images": images, "annotations": annotations, "categories": categories}


if __name__ == "__main__":
    main()
