"""Whether two parts of a job mean the same by a label."""

from collections.abc import Sequence

from frs.dataset.issues import printable


def difference(expected: Sequence[str], found: Sequence[str], where: str) -> str | None:
    """A sentence on how the classes `found` differ from the training file's, in names or order; None if they agree."""
    if tuple(expected) == tuple(found):
        return None
    missing = [name for name in expected if name not in set(found)]
    extra = [name for name in found if name not in set(expected)]
    if not missing and not extra:
        return f"{where} has the training file's classes in another order: {_names(found)} for {_names(expected)}."
    parts = [f"lacks {_names(missing)}" if missing else "", f"adds {_names(extra)}" if extra else ""]
    return f"{where} {' and '.join(filter(None, parts))}, compared with the training file's {_names(expected)}."


def _names(names: Sequence[str], most: int = 8) -> str:
    listed = ", ".join(repr(printable(name, 40)) for name in names[:most])
    return f"{listed} and {len(names) - most} more" if len(names) > most else listed
