"""The images that a COCO file lists are found in the right folder; masks of the same names are not taken for them."""

import json
from pathlib import Path

import pytest
from layout_writers import annotations
from PIL import Image

from frs.dataset.check import check_split
from frs.dataset.upload.layouts import convert


def draw(folder: Path, *names: str, mode: str = "RGB") -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.radial_gradient("L").resize((96, 64)).convert(mode).save(path)


def write_coco(path: Path, *names: str) -> None:
    document = {
        "images": [{"id": n, "file_name": name, "width": 96, "height": 64} for n, name in enumerate(names)],
        "annotations": [
            {"id": n, "image_id": n, "category_id": 1, "bbox": [1, 2, 30, 20]} for n, _ in enumerate(names)
        ],
        "categories": [{"id": 1, "name": "cat"}],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))


def issues(folder: Path, val_fraction: float | None = 0.5) -> dict[str, int]:
    """Convert; return the numbers of issues of both splits by code, except that a split has no boxes."""
    target = folder.with_name("converted")
    convert(folder, target, val_fraction)
    counts: dict[str, int] = {}
    for split in ("train", "val"):
        report = check_split(target / split, target / f"annotations/instances_{split}.json")
        counts |= {code: n for code, n in report.issue_counts.items() if code != "boxes_missing"}
    return counts


@pytest.mark.parametrize("listed", [("a.jpg", "A.jpg"), ("a.jpg", "./a.jpg"), ("x\\a.jpg", "x/a.jpg")])
@pytest.mark.parametrize("val_fraction", [0.2, 0.5, 0.8])
def test_an_image_listed_under_two_spellings_stays_in_one_split(tmp_path, listed, val_fraction):
    names = [*listed, *(name.replace("a.", "b.").replace("A.", "B.") for name in listed)]
    draw(tmp_path / "in/images", *{name.replace("\\", "/").lower() for name in names})
    write_coco(tmp_path / "in/result.json", *names)
    assert issues(tmp_path / "in", val_fraction) == {"image_listed_twice": 1}
    assert [len(annotations(tmp_path / "converted", split)["images"]) for split in ("train", "val")] == [2, 2]
