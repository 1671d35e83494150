"""Training, validation and unlabelled split of a job, read and checked before training."""

from dataclasses import dataclass, replace
from functools import cached_property

from frs.dataset.check import CheckedSplit, ProgressCallback, check_pair, inspect_split
from frs.dataset.coco import CocoFile
from frs.dataset.report import Report
from frs.dataset.trainable import background_images, labelled_images
from frs.errors import BadDataset
from frs.files import digest
from frs.resolved import ResolvedSpec, SplitFiles


@dataclass(frozen=True)
class LoadedSplit:
    """One split: its annotations, and the images excluded from it."""

    files: SplitFiles
    """Paths of the images folder and the annotation file."""
    coco: CocoFile
    excluded: frozenset[int]
    """Ids of the images that are not used: those with issues, and those that `sample` dropped."""
    sha256: str
    """SHA-256 of the annotation file, lower-case hex."""
    report: Report

    @property
    def valid(self) -> list[int]:
        """Indices of the images that are used."""
        return [i for i, image in enumerate(self.coco.images) if image.id not in self.excluded]

    def sample(self, images: int) -> "LoadedSplit":
        """Return the split reduced to at most `images` valid images, evenly spaced over all of them."""
        valid = self.valid
        chosen = {valid[len(valid) * i // images] for i in range(images)} if len(valid) > images else set(valid)
        dropped = {self.coco.images[i].id for i in valid if i not in chosen}
        return replace(self, excluded=self.excluded | dropped)

    @property
    def ids(self) -> list[int]:
        """Ids of the images that are used."""
        return [self.coco.images[i].id for i in self.valid]


@dataclass(frozen=True)
class LoadedSplits:
    """All splits of a job."""

    train: LoadedSplit
    val: LoadedSplit
    unlabelled: LoadedSplit | None = None
    """Split without boxes, for training with the distillation terms only."""
    keep_background: bool = False
    """Whether training images without annotations are trained on."""

    @property
    def splits(self) -> dict[str, LoadedSplit]:
        """The splits that the job has, by name."""
        splits = {"train": self.train, "val": self.val, "unlabelled": self.unlabelled}
        return {name: split for name, split in splits.items() if split is not None}

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the labels."""
        return self.train.coco.classes

    @cached_property
    def labelled(self) -> list[int]:
        """Indices of the training images with trainable boxes, by mmdet's rule."""
        return labelled_images(self.train.coco, self.train.excluded)

    @cached_property
    def background(self) -> list[int]:
        """Indices of the training images without annotations."""
        return background_images(self.train.coco, self.train.excluded)

    @cached_property
    def trained(self) -> list[int]:
        """Indices of the images that are trained on."""
        return sorted(self.labelled + self.background) if self.keep_background else self.labelled


def load_splits(spec: ResolvedSpec, progress: ProgressCallback) -> LoadedSplits:
    """Return the splits of a job, without the images that have issues; the unlabelled split without its boxes.

    Raises BadDataset if no image of a split is left to train on or to evaluate, ClassMismatch if the classes of the
    splits differ.
    """
    files = {"train": spec.train, "val": spec.val} | ({"unlabelled": spec.unlabelled} if spec.unlabelled else {})
    checked = {
        name: inspect_split(split.images, split.annotations, boxes=name != "unlabelled", progress=progress)
        for name, split in files.items()
    }
    train, val = checked["train"], checked["val"]
    check_pair(train.report, val.report)
    checked |= {"train": train.matching(val.coco.classes), "val": val.matching(train.coco.classes)}
    splits = {name: _load_split(split, checked[name]) for name, split in files.items()}
    if "unlabelled" in splits:
        splits["unlabelled"] = replace(splits["unlabelled"], coco=splits["unlabelled"].coco.without_boxes())
    data = LoadedSplits(**splits, keep_background=spec.job.schedule.keep_background_images)
    if spec.job.trains and not data.labelled:
        raise BadDataset(_describe_issues("train", train.report) or "The training split has no image with boxes.")
    if not data.val.valid:
        raise BadDataset(_describe_issues("val", val.report) or "The validation split has no images.")
    if data.unlabelled and not data.unlabelled.valid:
        text = _describe_issues("unlabelled", data.unlabelled.report)
        raise BadDataset(text or "The training split of the data set `unlabelled` has no images.")
    return data


def describe_excluded(data: LoadedSplits, max_invalid_fraction: float) -> list[str]:
    """Return one message for each split that has excluded images.

    Raises BadDataset, naming files and boxes, if a split exceeds `max_invalid_fraction` or is not acceptable at all.
    """
    messages = []
    for name, split in data.splits.items():
        text = _describe_issues(name, split.report)
        if text and not split.report.accepted(max_invalid_fraction):
            raise BadDataset(text)
        messages += [f"{text} These images are excluded."] if text else []
    return messages


def _describe_issues(name: str, report: Report) -> str:
    if not report.issue_counts:
        return ""
    first_messages = " ".join(issue.message for issue in report.issues[:5])
    return f"The {name} split has issues in {report.invalid_images} of {report.counts.images} images: {first_messages}"


def _load_split(files: SplitFiles, checked: CheckedSplit) -> LoadedSplit:
    report = checked.report
    excluded = frozenset(report.invalid_image_ids)
    return LoadedSplit(files, checked.coco, excluded, digest(files.annotations), report)
