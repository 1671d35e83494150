"""Names of splits, as folders, files and keys of data sets have them."""

import re
from typing import Literal

SplitRole = Literal["train", "val", "test"]
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
    words = re.findall(r"[a-z]+", name.lower())
    roles = {_ROLES[word] for word in words if word in _ROLES}
    return roles.pop() if len(roles) == 1 else None
