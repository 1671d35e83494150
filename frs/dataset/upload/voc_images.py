"""The images of a Pascal VOC data set, found by the names that XML files and lists state."""

from collections import defaultdict
from pathlib import Path

from frs.dataset.issues import printable
from frs.dataset.upload.annotated_images import list_images, rank_folder
from frs.dataset.upload.archive import normalise_path
from frs.dataset.upload.voc_xml import InvalidAnnotation


class ImageIndex:
    """Index of the image files and of the XML files."""

    def __init__(self, folder: Path) -> None:
        self.top = folder
        self.root = folder / "JPEGImages" if (folder / "JPEGImages").is_dir() else None
        """Folder that listed names are relative to; None if images lie beside their XML files."""
        self.annotations = folder / "Annotations" if (folder / "Annotations").is_dir() else folder
        self._annotated = {path.stem for path in self.annotations.rglob("*.xml")}
        self.by_path: defaultdict[str, list[Path]] = defaultdict(list)
        """Images by their path relative to `root`, with and without suffix."""
        by_name = defaultdict[str, list[Path]](list)
        for path in list_images(folder):
            relative = self._relative(path, self.root or self.annotations)
            for name in (relative, relative.with_suffix("")):
                self.by_path[name.as_posix()].append(path)
                by_name[name.name].append(path)
        self._by_name = {name: self._choose_likely(name, paths) for name, paths in by_name.items()}

    def find(self, xml: Path, file_name: str | None) -> Path | None:
        """Return the image of an XML file: the one that `<filename>` names, or the one of the XML file's own name.

        The latter lies in the corresponding folder, or is the only image of that name. Of images of one name in several
        folders, the one in the corresponding folder is used, then the one in a folder of images.

        A `<filename>` that belongs to another XML file is ignored: tools that copy images forget to change it.

        Raises InvalidAnnotation if several images are equally likely.
        """
        named = Path(normalise_path(file_name or "")).name  # Label Studio omits the suffix
        stated, own = self._find_named(xml, named), self._find_beside(xml, xml.stem)
        free = [image for image in stated if image.stem not in self._annotated]
        same = [image for image in stated if image.stem == xml.stem]
        choices = (
            free if len(free) == 1 else [],
            [image for image in own if image in same],
            own,
            free or same,
            self._find_named(xml, xml.stem),
        )
        images = next(filter(None, choices), [])
        if len(images) > 1:
            names = " or ".join(printable(image.relative_to(self.top).as_posix()) for image in images[:2])
            raise InvalidAnnotation(f" may belong to {names}: keep one of them, or state its name in <filename>")
        return next(iter(images), None)

    def _find_named(self, xml: Path, name: str) -> list[Path]:
        return self._find_beside(xml, name) or self._by_name.get(name, [])

    def _find_beside(self, xml: Path, name: str) -> list[Path]:
        """Return the images of a name, with or without suffix, in the folder that corresponds to the XML file's."""
        folder = self._relative(xml.parent, self.annotations)
        return self.by_path.get((folder / name).as_posix(), [])

    def _choose_likely(self, name: str, images: list[Path]) -> list[Path]:
        """Return the image of a name that is likely meant, or two if several are; suffixes count before folders."""
        exact = [image for image in images if image.name == name] or images
        ranks = [rank_folder(image.parent.relative_to(self.top)) for image in exact]
        best = min(ranks)
        return [image for image, rank in zip(exact, ranks, strict=True) if rank == best][:2]

    def _relative(self, path: Path, root: Path) -> Path:
        return path.relative_to(root if path.is_relative_to(root) else self.top)
