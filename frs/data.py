"""A job's two splits, read and checked before anything is trained."""

from dataclasses import dataclass, replace
from functools import cached_property

from frs import weights
from frs.announcer import Announcer
from frs.dataset import coco
from frs.dataset.check import check, check_pair
from frs.dataset.coco import CocoFile
from frs.dataset.report import Report
from frs.errors import BadDataset
from frs.images import with_boxes
from frs.resolved import ResolvedSpec, Split


@dataclass(frozen=True)
class Half:
    """One split: its content and the images left out for their problems."""

    split: Split
    coco: CocoFile
    left_out: frozenset[int]
    sha256: str
    """Of the annotation file."""

    @property
    def kept(self) -> list[int]:
        """Indices of the images that are whole."""
        return [i for i, image in enumerate(self.coco.images) if image.id not in self.left_out]

    @property
    def ids(self) -> list[int]:
        return [self.coco.images[i].id for i in self.kept]


@dataclass(frozen=True)
class Data:
    train: Half
    val: Half
    unlabelled: Half | None = None
    """Boxes dropped."""

    @property
    def classes(self) -> tuple[str, ...]:
        return self.train.coco.classes

    @cached_property
    def trainable(self) -> list[int]:
        """Indices of the training images: those with boxes, as stock mmdet has it."""
        return with_boxes(self.train.coco, self.train.left_out)


def load(spec: ResolvedSpec, announcer: Announcer) -> Data:
    """Raises BadDataset naming file and box when more is wrong than the spec allows, ClassMismatch between the splits."""
    splits = _splits(spec)
    reports = {name: _checked(split, spec.job.max_bad_share, name, announcer) for name, split in splits.items()}
    check_pair(reports["train"], reports["val"])
    halves = {name: _half(split, reports[name]) for name, split in splits.items()}
    if "unlabelled" in halves:
        halves["unlabelled"] = replace(halves["unlabelled"], coco=halves["unlabelled"].coco.without_boxes())
    data = Data(**halves)
    if spec.job.kind != "evaluate" and not data.trainable:
        raise BadDataset("The training split has no image with boxes.")
    return data


def _splits(spec: ResolvedSpec) -> dict[str, Split]:
    splits = {"train": spec.train, "val": spec.val, "unlabelled": spec.unlabelled}
    return {name: split for name, split in splits.items() if split is not None}


def _checked(split: Split, max_bad_share: float, name: str, announcer: Announcer) -> Report:
    report = check(split.images, split.annotations, progress=announcer.within)
    if report.problem_counts:
        listed = " ".join(problem.message for problem in report.problems[:5])
        said = f"The {name} split has problems in {report.bad_images} of {report.counts.images} images: {listed}"
        if not report.accepted(max_bad_share):
            raise BadDataset(said)
        announcer.log(f"{said} They are left out.", "warning")
    return report


def _half(split: Split, report: Report) -> Half:
    content = coco.read(split.annotations)
    return Half(split, content, frozenset(report.bad_image_ids), weights.digest(split.annotations))
