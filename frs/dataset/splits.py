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
    """One split: its content and the images left out for their problems."""

    split: SplitFiles
    coco: CocoFile
    left_out: frozenset[int]
    sha256: str
    """Of the annotation file."""
    report: Report

    @property
    def kept(self) -> list[int]:
        """Indices of the images that are whole."""
        return [i for i, image in enumerate(self.coco.images) if image.id not in self.left_out]

    def sample(self, images: int) -> "LoadedSplit":
        """At most so many of the images, evenly from the whole."""
        kept = self.kept
        chosen = {kept[len(kept) * i // images] for i in range(images)} if len(kept) > images else set(kept)
        rest = {self.coco.images[i].id for i in kept if i not in chosen}
        return replace(self, left_out=self.left_out | rest)

    @property
    def ids(self) -> list[int]:
        return [self.coco.images[i].id for i in self.kept]


@dataclass(frozen=True)
class LoadedSplits:
    train: LoadedSplit
    val: LoadedSplit
    unlabelled: LoadedSplit | None = None
    """Boxes dropped."""

    @property
    def halves(self) -> dict[str, LoadedSplit]:
        halves = {"train": self.train, "val": self.val, "unlabelled": self.unlabelled}
        return {name: half for name, half in halves.items() if half is not None}

    @property
    def classes(self) -> tuple[str, ...]:
        return self.train.coco.classes

    @cached_property
    def trainable(self) -> list[int]:
        """Indices of the training images: those with boxes, as stock mmdet has it."""
        return labelled_images(self.train.coco, self.train.left_out)


def load_splits(spec: ResolvedSpec, progress: Progress) -> LoadedSplits:
    """The splits without the images that have problems, and the unlabelled images without their boxes.

    Raises BadDataset where nothing is left, ClassMismatch where the splits differ.
    """
    splits = {"train": spec.train, "val": spec.val} | ({"unlabelled": spec.unlabelled} if spec.unlabelled else {})
    reports = {
        name: check_split(split.images, split.annotations, boxes=name != "unlabelled", progress=progress)
        for name, split in splits.items()
    }
    check_pair(reports["train"], reports["val"])
    halves = {name: _load_split(split, reports[name]) for name, split in splits.items()}
    if "unlabelled" in halves:
        halves["unlabelled"] = replace(halves["unlabelled"], coco=halves["unlabelled"].coco.without_boxes())
    data = LoadedSplits(**halves)
    if spec.job.kind != "evaluate" and not data.trainable:
        raise BadDataset(_describe_issues("train", reports["train"]) or "The training split has no image with boxes.")
    if not data.val.kept:
        raise BadDataset(_describe_issues("val", reports["val"]) or "The validation split has no images.")
    return data


def describe_excluded(data: LoadedSplits, max_bad_share: float) -> list[str]:
    """What is left out of each split, in words. Raises BadDataset naming file and box where it is more than allowed."""
    told = []
    for name, half in data.halves.items():
        said = _describe_issues(name, half.report)
        if said and not half.report.accepted(max_bad_share):
            raise BadDataset(said)
        told += [f"{said} They are left out."] if said else []
    return told


def _describe_issues(name: str, report: Report) -> str:
    if not report.problem_counts:
        return ""
    listed = " ".join(problem.message for problem in report.problems[:5])
    return f"The {name} split has problems in {report.bad_images} of {report.counts.images} images: {listed}"


def _load_split(split: SplitFiles, report: Report) -> LoadedSplit:
    content = coco.read(split.annotations)
    return LoadedSplit(split, content, frozenset(report.bad_image_ids), digest(split.annotations), report)
