"""Annotation formats that are recognised by their files, but not read: for a message on how to export them to COCO."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_HEAD_BYTES = 64 << 10
_MAX_FILES = 20
"""Number of annotation files that are looked at."""


class _Format(NamedTuple):
    name: str
    suffix: str
    marks: tuple[bytes, ...]
    """Texts that the beginning of a file of this format contains."""
    export: str
    """How to export it to COCO."""


FORMATS = (
    _Format("labelme", ".json", (b'"shapes"', b'"imagePath"'), "Convert it with `labelme2coco`."),
    _Format("VIA", ".json", (b'"_via_',), "In VIA, choose Annotation, Export Annotations (COCO format)."),
    _Format("VIA", ".json", (b'"regions"', b'"shape_attributes"'), "In VIA, export annotations in COCO format."),
    _Format("Datumaro", ".json", (b'"items"', b'"categories"'), "Run `datum convert -f coco`."),
    _Format("Supervisely", ".json", (b'"objects"', b'"points"', b'"exterior"'), "Run its app Export to COCO."),
    _Format("Label Studio JSON", ".json", (b'"from_name"', b'"rectanglelabels"'), "In Label Studio, export as COCO."),
    _Format("CreateML", ".json", (b'"coordinates"', b'"label"'), "Export the data set as COCO from its tool."),
    _Format("BDD100K", ".json", (b'"box2d"',), "Convert it with `python -m bdd100k.label.to_coco`."),
    _Format("VoTT", ".json", (b'"regions"', b'"asset"'), "In VoTT, export as Pascal VOC."),
    _Format("FiftyOne", ".json", (b'"sample_fields"',), "Export with `dataset_type=fo.types.COCODetectionDataset`."),
    _Format("COCO results", ".json", (b'"score"', b'"image_id"', b'"bbox"'), "These are detections, not annotations."),
    _Format("CVAT for images", ".xml", (b"<annotations>",), "In CVAT, export as COCO 1.0."),
)


def recognise(folder: Path) -> tuple[str, Path, str] | None:
    """Return the name of a known format, a file of it, and how to export it to COCO; None if no file is recognised."""
    for path in _sample(folder):
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
        for known in FORMATS:
            if path.suffix.lower() == known.suffix and all(mark in head for mark in known.marks):
                return known.name, path, known.export
    return None


def _sample(folder: Path) -> Iterator[Path]:
    for suffix in ("json", "xml"):
        yield from sorted(folder.rglob(f"*.{suffix}"))[:_MAX_FILES]
