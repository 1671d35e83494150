"""Comparison of class lists: a label means the same class in two files only if names and order agree."""

from collections.abc import Sequence

from frs.dataset.issues import printable

TEACHER_CLASSES_HINT = (
    "Choose a teacher that has all classes of the data set; others and their order do not matter. A teacher of other "
    "classes needs a method without logit term (`feature`, `pkd`, `cwd`, `mgd`) or `distillation.logit_weight: 0`."
)
"""Next step if the logits of a teacher that lacks classes are distilled."""


def describe_class_difference(expected: Sequence[str], actual: Sequence[str], where: str) -> str | None:
    """Return a sentence on how the classes `actual` differ from the training file's `expected`; None if they agree.

    Both names and order count. `where` is the subject of the sentence, such as "The validation file".
    """
    if tuple(expected) == tuple(actual):
        return None
    missing = [name for name in expected if name not in set(actual)]
    extra = [name for name in actual if name not in set(expected)]
    if not missing and not extra:
        return (
            f"{where} has the training file's classes in another order: {_format_names(actual)} "
            f"instead of {_format_names(expected)}."
        )
    parts = [f"lacks {_format_names(missing)}" if missing else "", f"adds {_format_names(extra)}" if extra else ""]
    return f"{where} {' and '.join(filter(None, parts))}, compared with the training file's {_format_names(expected)}."


def _format_names(names: Sequence[str], limit: int = 8) -> str:
    listed = ", ".join(repr(printable(name, 40)) for name in names[:limit])
    return f"{listed} and {len(names) - limit} more" if len(names) > limit else listed
