"""The label files of a YOLO data set."""

from collections.abc import Iterable
from pathlib import Path

from frs.dataset.upload.annotated_images import list_files


class LabelFiles:
    """Index of the text files that may hold labels, whatever the case of their suffix."""

    def __init__(self, folder: Path) -> None:
        self.top = folder
        self._by_stem = {path.with_suffix(""): path for path in list_files(folder, (".txt",))}

    def find(self, image: Path) -> Path | None:
        """Return the label file of an image: below `labels` instead of `images` in its path, or beside it.

        If several folders are named `images`, the innermost one that has labels counts.
        """
        parts = image.relative_to(self.top).with_suffix("").parts
        for index in reversed(range(len(parts) - 1)):
            if parts[index] == "images":
                labels = self._by_stem.get(self.top.joinpath(*parts[:index], "labels", *parts[index + 1 :]))
                if labels:
                    return labels
        return self._by_stem.get(image.with_suffix(""))

    def find_unused(self, images: Iterable[Path]) -> list[Path]:
        """Return the label files in folders `labels` that belong to none of the images."""
        used = {self.find(image) for image in images}
        return [
            path
            for path in self._by_stem.values()
            if path not in used
            and "labels" in path.relative_to(self.top).parts[:-1]
            and path.name not in ("classes.txt", "names.txt")
        ]
