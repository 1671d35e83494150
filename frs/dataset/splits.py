"""A job's two splits, read and checked before anything is trained."""

from dataclasses import dataclass, replace
from functools import cached_property

from frs.dataset import coco
from frs.dataset.check import Progress, check_pair, check_split
from frs.dataset.coco import CocoFile
from frs.dataset.report import Report
from frs.dataset.trainable import labelled_images
from frs.errors import BadDataset
from frs.files import digest
from frs.resolved import ResolvedSpec, SplitFiles


@dataclass(frozen=True)
class LoadedSplit:
    """One split: its content and the images left out for their issues."""

    files: SplitFiles
    coco: CocoFile
    excluded: frozenset[int]
    sha256: str
    """Of the annotation file."""
    report: Report

    @property
    def valid(self) -> list[int]:
        """Indices of the images that are whole."""
        return [i for i, image in enumerate(self.coco.images) if image.id not in self.excluded]

    def sample(self, images: int) -> "LoadedSplit":
        """At most so many of the images, evenly from the whole."""
        valid = self.valid
        chosen = {valid[len(valid) * i // images] for i in range(images)} if len(valid) > images else set(valid)
        rest = {self.coco.images[i].id for i in valid if i not in chosen}
        return replace(self, excluded=self.excluded | rest)

    @property
    def ids(self) -> list[int]:
        return [self.coco.images[i].id for i in self.valid]


@dataclass(frozen=True)
class LoadedSplits:
    train: LoadedSplit
    val: LoadedSplit
    unlabelled: LoadedSplit | None = None
    """Boxes dropped."""

    @property
    def splits(self) -> dict[str, LoadedSplit]:
        splits = {"train": self.train, "val": self.val, "unlabelled": self.unlabelled}
        return {name: split for name, split in splits.items() if split is not None}

    @property
    def classes(self) -> tuple[str, ...]:
        return self.train.coco.classes

    @cached_property
    def labelled(self) -> list[int]:
        """Indices of the training images: those with boxes, as stock mmdet has it."""
        return labelled_images(self.train.coco, self.train.excluded)


def load_splits(spec: ResolvedSpec, progress: Progress) -> LoadedSplits:
    """The splits without the images that have issues, and the unlabelled images without their boxes.

    Raises BadDataset where nothing is left, ClassMismatch where the splits differ.
    """
    files = {"train": spec.train, "val": spec.val} | ({"unlabelled": spec.unlabelled} if spec.unlabelled else {})
    reports = {
        name: check_split(part.images, part.annotations, boxes=name != "unlabelled", progress=progress)
        for name, part in files.items()
    }
    check_pair(reports["train"], reports["val"])
    splits = {name: _load_split(part, reports[name]) for name, part in files.items()}
    if "unlabelled" in splits:
        splits["unlabelled"] = replace(splits["unlabelled"], coco=splits["unlabelled"].coco.without_boxes())
    data = LoadedSplits(**splits)
    if spec.job.kind != "evaluate" and not data.labelled:
        raise BadDataset(_describe_issues("train", reports["train"]) or "The training split has no image with boxes.")
    if not data.val.valid:
        raise BadDataset(_describe_issues("val", reports["val"]) or "The validation split has no images.")
    return data


def describe_excluded(data: LoadedSplits, max_invalid_fraction: float) -> list[str]:
    """What is left out of each split, in words. Raises BadDataset naming file and box where it is more than allowed."""
    told = []
    for name, split in data.splits.items():
        said = _describe_issues(name, split.report)
        if said and not split.report.accepted(max_invalid_fraction):
            raise BadDataset(said)
        told += [f"{said} They are left out."] if said else []
    return told


def _describe_issues(name: str, report: Report) -> str:
    if not report.issue_counts:
        return ""
    listed = " ".join(issue.message for issue in report.issues[:5])
    return f"The {name} split has issues in {report.invalid_images} of {report.counts.images} images: {listed}"


def _load_split(files: SplitFiles, report: Report) -> LoadedSplit:
    content = coco.read(files.annotations)
    return LoadedSplit(files, content, frozenset(report.invalid_image_ids), digest(files.annotations), report)
