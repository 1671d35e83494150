"""The images of a COCO data set, found by the names that its annotation files list."""

from collections.abc import Iterable
from pathlib import Path

from frs.dataset.issues import printable
from frs.dataset.upload.annotated_images import common_folder, list_images, rank_folder
from frs.dataset.upload.archive import normalise_path
from frs.dataset.upload.split_names import SplitFolders, SplitRole
from frs.errors import BadDataset

_SAMPLES = 100
"""Number of listed images by which the images folder is recognised."""


class ImageFiles:
    """Index of the image files in the archive."""

    def __init__(self, top: Path, annotations: Iterable[Path]) -> None:
        self.top = top.resolve()
        paths = list_images(self.top)
        self._paths = {str(path).casefold(): path for path in paths}  # unpacked names differ in more than case
        self._by_base_name: dict[str, list[Path]] = {}
        for path in paths:
            self._by_base_name.setdefault(path.name, []).append(path)
        parents = dict.fromkeys(path.parent for path in paths)
        self._shared = common_folder([*paths, *(path.resolve() for path in annotations)])
        """Folder of the whole data set: its name and those around it state no split."""
        self._split_folders = SplitFolders(parent.relative_to(self._shared) for parent in parents)
        self._folders = list(dict.fromkeys(folder for parent in parents for folder in (parent, *parent.parents)))

    def find_root(self, file_names: list[str], annotations: Path, role: SplitRole | None) -> Path:
        """Return the folder in which most of the file names exist, but none whose name states another split.

        Of equal folders, one whose name states the split comes first, or without a split one whose name ends that of
        the annotation file; then one named as folders of images are, then that of the annotation file, then one around
        the others. Raises BadDataset if two are still equal and hold files
        of the same names.
        """
        beside = annotations.resolve().parent

        def rank(folder: Path) -> tuple[bool, int, bool]:
            is_named = annotations.stem.endswith(folder.name) if role is None else self._role(folder) == role
            return not is_named, rank_folder(folder.relative_to(self.top)), folder != beside

        candidates = dict.fromkeys([*self._folders, beside, *beside.parents])
        folders = [path for path in candidates if path.is_relative_to(self.top)]
        folders = [path for path in folders if self._role(path) in (role, None)] or [self.top]
        folders.sort(key=lambda folder: (*rank(folder), len(folder.parts)))
        samples = file_names[:: max(1, len(file_names) // _SAMPLES)]
        found = {folder: self._find_below(folder, samples) for folder in folders}
        root = max(found, key=lambda folder: len(found[folder]))
        equal = [path for path in folders if len(found[path]) == len(found[root]) and rank(path) == rank(root)]
        for folder in equal:
            if not folder.is_relative_to(root) and found[folder].keys() & found[root]:
                raise self._describe_equal_folders(annotations, root, folder)
        return root

    def find(self, root: Path, file_names: list[str], role: SplitRole | None) -> dict[str, Path]:
        """Return the image files below `root`, and of the others those whose base name the archive holds once.

        The latter are in no folder that states another split, and in none with other files of the names below `root`,
        such as masks.
        """
        below = self._find_below(root, file_names)
        used, samples = set(below.values()), list(below.values())[:_SAMPLES]
        copies = {copy.parent for path in samples for copy in self._by_base_name[path.name] if copy not in used}
        elsewhere = {}
        for name in file_names:
            paths = self._by_base_name.get(_normalise(name).rsplit("/", 1)[-1], [])
            if name in below or len(paths) != 1 or paths[0] in used or paths[0].parent in copies:
                continue
            if self._role(paths[0].parent) in (role, None):
                elsewhere[name] = paths[0]
        return below | elsewhere

    def has_folder(self, role: SplitRole) -> bool:
        """Return whether a folder with images has the name of the split."""
        return any(self._role(folder) == role for folder in self._folders if folder.is_relative_to(self.top))

    def _describe_equal_folders(self, annotations: Path, *folders: Path) -> BadDataset:
        file, *names = (printable(path.relative_to(self.top).as_posix()) for path in (annotations.resolve(), *folders))
        return BadDataset(
            f"The images of {file} are both in {' and in '.join(sorted(names))}.",
            "Keep one of these folders, or name that of the images `images`, and upload again.",
        )

    def _role(self, folder: Path) -> SplitRole | None:
        if not folder.is_relative_to(self._shared):
            return None
        return self._split_folders.find_role(folder.relative_to(self._shared))

    def _find_below(self, root: Path, file_names: list[str]) -> dict[str, Path]:
        paths = {name: self._paths.get(f"{root}/{_normalise(name)}".casefold()) for name in file_names}
        return {name: path for name, path in paths.items() if path}


def _normalise(file_name: str) -> str:
    return normalise_path(file_name).removeprefix("./")
