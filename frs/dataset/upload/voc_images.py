"""The images of a Pascal VOC data set, found by the names that XML files and lists state."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from frs.dataset.issues import printable
from frs.dataset.upload.annotated_images import list_files, list_images, rank_folder
from frs.dataset.upload.archive import normalise_path
from frs.dataset.upload.voc_xml import InvalidAnnotation

_Parts = tuple[str, ...]
_Neighbours = dict[tuple[int, _Parts], list[Path]]
"""Images by the parts of their folder without the one at an index, and with index -1 by those of each folder around."""


class ImageIndex:
    """Index of the image files and of the XML files."""

    def __init__(self, folder: Path) -> None:
        self.top = folder
        self._annotated = {path.stem for path in list_files(folder, (".xml",))}
        self._by_path: defaultdict[Path, list[Path]] = defaultdict(list)
        """Images by their path, with and without suffix."""
        by_name = defaultdict[str, list[Path]](list)
        for path in list_images(folder):
            for name in (path, path.with_suffix("")):
                self._by_path[name].append(path)
                by_name[name.name].append(path)
        self._by_name = {name: self._choose_likely(name, paths) for name, paths in by_name.items()}
        self._neighbours: dict[str, _Neighbours] = {}
        """Index of the images that share a name, by that name; built when it is needed."""

    def exists(self, path: Path) -> bool:
        """Return whether there is an image of this path, which may lack its suffix."""
        return path in self._by_path

    def find(self, xml: Path, file_name: str | None) -> Path | None:
        """Return the image of an XML file: the one that `<filename>` names, or the one of the XML file's own name.

        The latter lies in the corresponding folder, or is the only image of that name. Of images of one name in several
        folders, the one in the corresponding folder is used, then the one in a folder of images, then the nearest.

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
        return self._find_beside(xml, name) or self._find_nearest(xml, name)

    def _find_beside(self, xml: Path, name: str) -> list[Path]:
        """Return the images of a name, with or without suffix, in the folder of the XML file or corresponding to it."""
        folder = xml.parent.relative_to(self.top)
        if "Annotations" not in folder.parts:
            return self._by_path.get(self.top / folder / name, [])
        last = len(folder.parts) - 1 - folder.parts[::-1].index("Annotations")
        outer, inner = folder.parts[:last], folder.parts[last + 1 :]
        folders = (self.top.joinpath(*outer, *middle, *inner) for middle in (["JPEGImages"], [], ["Annotations"]))
        return next(filter(None, (self._by_path.get(path / name) for path in folders)), [])

    def _find_nearest(self, xml: Path, name: str) -> list[Path]:
        """Return the likeliest image of a name, or two if several are equally near to the XML file.

        Near is an image whose folder differs in one component from the XML file's, as `images/val` from
        `annotations/val`; if there are several or none, one in the innermost folder around the XML file that has any.
        """
        images = self._by_name.get(name, [])
        if len(images) < 2:
            return images
        if name not in self._neighbours:
            self._neighbours[name] = self._index_neighbours(images)
        neighbours, parts = self._neighbours[name], xml.parent.relative_to(self.top).parts
        near = [image for key in _mask_parts(parts) for image in neighbours.get(key, [])[:2]]
        around = (neighbours.get((-1, parts[:length])) for length in range(len(parts), -1, -1))
        return near if len(near) == 1 else next(filter(None, around), [])[:2]

    def _index_neighbours(self, images: list[Path]) -> _Neighbours:
        index: defaultdict[tuple[int, _Parts], list[Path]] = defaultdict(list)
        for image in images:
            parts = image.parent.relative_to(self.top).parts
            for key in (*_mask_parts(parts), *((-1, parts[:length]) for length in range(len(parts) + 1))):
                index[key].append(image)
        return index

    def _choose_likely(self, name: str, images: list[Path]) -> list[Path]:
        """Return the images of a name that are likely meant; suffixes count before folders."""
        exact = [image for image in images if image.name == name] or images
        ranks = [rank_folder(image.parent.relative_to(self.top)) for image in exact]
        best = min(ranks)
        return [image for image, rank in zip(exact, ranks, strict=True) if rank == best]


def _mask_parts(parts: _Parts) -> Iterator[tuple[int, _Parts]]:
    """Yield the parts without the first, without the second and so on, each with its index."""
    return ((index, parts[:index] + parts[index + 1 :]) for index in range(len(parts)))
