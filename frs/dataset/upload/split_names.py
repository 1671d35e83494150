"""Names of splits, as folders, files and keys of data sets have them."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import PurePath
from typing import Literal, TypeVar

SplitRole = Literal["train", "val", "test"]
_Item = TypeVar("_Item")
_ROLES: dict[str, SplitRole] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


def find_role(name: str) -> SplitRole | None:
    """Return the split that a file or folder name states, such as `instances_Train`, `val2017` or `valid`.

    None if the name states none, or several.
    """
    roles = {_ROLES[word] for word in _words(name) if word in _ROLES}
    return roles.pop() if len(roles) == 1 else None


def take_unlisted(used: Iterable[Iterable[_Item]], others: Iterable[Sequence[_Item]]) -> list[_Item]:
    """Return the items of the `others`, lists that state no split, without lists that share an item with another one.

    Such a list, as VOC's trainval.txt, arranges images of the splits anew. The rest are for training: CVAT writes the
    tasks of a project without a subset so.
    """
    listed: set[_Item] = set().union(*used)
    items: list[_Item] = []
    for other in others:
        if listed.isdisjoint(other):
            items += other
            listed.update(other)
    return items


class SplitFolders:
    """Splits that folders state, by their own names and those around them.

    The folders beside one of another split decide: of `plates_val/train` and `plates_val/test` the inner ones, of
    `train/bus` and `valid/train` the outer ones. If there are several, the outermost one decides; if there is none, the
    innermost folder that states a split. Of these, a name of one word (`val2017`) counts before one of several.
    """

    def __init__(self, folders: Iterable[PurePath]) -> None:
        """Index the folders that hold images or annotations; their paths are relative to the data set."""
        roles: defaultdict[PurePath, set[SplitRole]] = defaultdict(set)
        for path in {path for folder in folders for path in (folder, *folder.parents)}:
            if role := find_role(path.name):
                roles[path.parent].add(role)
        self._separating = {parent for parent, stated in roles.items() if len(stated) > 1}
        self._mixed = {path for parent in self._separating for path in (parent, *parent.parents)}

    def find_role(self, folder: PurePath) -> SplitRole | None:
        """Return the split that a folder's path states; None if it states none, or the folder holds several splits."""
        stated = [path for path in (folder, *folder.parents) if find_role(path.name)]
        deciding = [path for path in reversed(stated) if path.parent in self._separating]
        if not deciding and folder in self._mixed:
            return None
        names = [path.name for path in deciding or stated]
        return find_role(min(names, key=lambda name: len(_words(name)) > 1)) if names else None


def _words(name: str) -> list[str]:
    return re.findall(r"[a-z]+", name.lower())
