"""The report of an export, `export.json`: how its files compare with the student. This module does not import torch."""

from pydantic import BaseModel, ConfigDict

from frs.evaluation.advice import LEAST_MAP
from frs.evaluation.verdict import Interval
from frs.spec import ExportFormat


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


class LayerLoss(_Part):
    """The error that quantisation makes in one tensor."""

    tensor: str
    """Name of the tensor in the fp32 file."""
    signal_to_noise: float
    """Signal to noise in dB; the lowest values lose most."""


class FileReport(_Part):
    """One exported file and how it compares with the student."""

    format: ExportFormat
    """Format of the file."""
    name: str
    """Name of the artifact."""
    sha256: str
    """SHA-256 of the file, lower-case hex."""
    bytes: int
    """Size of the file in bytes."""
    metrics: dict[str, float | None]
    """COCO metrics of the file on the validation split, 0 to 1."""
    drop: float
    """mAP of the student minus mAP of the file, 0 to 1."""
    drop_interval: Interval | None
    """95 % interval of the drop over the choice of validation images; null if no image has an object."""
    max_drop: float
    """Largest drop that passes, 0 to 1."""
    passed: bool
    """Whether the drop is at most `max_drop`; false if there is nothing to compare."""
    nothing_to_compare: str | None = None
    """Why the drop says nothing, and what to do: the student finds no objects that the file could lose."""
    compared: int
    """Number of the student's detections with a score of at least 0.3."""
    equal: int
    """Number of them that the file has too: same class, IoU above 0.99, score within 0.001."""
    missing: int
    """Number of them without a detection of the file of the same class and an IoU of at least 0.5."""
    largest_box_difference: float
    """Largest difference in pixels of a coordinate between a compared detection and the file's with the highest IoU."""
    largest_score_difference: float
    """Largest difference of their scores."""
    latency_ms: float
    """Median time of an image on the CPU in ms, from decoded pixels to boxes."""
    threads: int
    """Number of CPU threads of that time."""
    load: float | None = None
    """Mean number of threads that wanted to run meanwhile, per CPU of the machine: well above 1, other work made the
    time longer. Null if unknown."""
    peak_mb: float | None
    """Peak memory of the process that ran the file, in MB."""
    worst_layers: list[LayerLoss] = []
    """The layers that lose most; only of a quantised file that did not pass."""


def nothing_to_compare(student_mAP: float) -> str | None:
    """Return why a file cannot be compared with a student of that mAP, 0 to 1; None if it can be."""
    if student_mAP >= LEAST_MAP:
        return None
    finding = f"the student finds no objects (mAP {100 * student_mAP:.1f} points), so a file has none to lose"
    return f"Nothing to compare: {finding}. Train it longer, then export it again."


class ExportReport(_Part):
    """The exported files of one student."""

    student_sha256: str | None
    """SHA-256 of the student's weights file."""
    metrics: dict[str, float | None]
    """COCO metrics of the student in torch, 0 to 1."""
    latency_ms: float
    """Median time of a validation image in torch on the CPU in ms, from scaled pixels to boxes, for one thread."""
    load: float | None = None
    """Load during that time, as in `files`."""
    images: int
    """Number of validation images."""
    classes: tuple[str, ...]
    """Class names in the order of the labels."""
    image_size: tuple[int, int]
    """[width, height] in pixels that images are scaled into."""
    calibration_images: int
    """Number of training images that gave the ranges of the activations; 0 without a quantised file."""
    files: list[FileReport]
    """The files."""

    @property
    def passed(self) -> bool:
        """Whether all files passed."""
        return all(file.passed for file in self.files)


COMPARED_SCORE = 0.3
PAIRED_IOU = 0.5
EQUAL_IOU = 0.99
EQUAL_SCORE = 1e-3
