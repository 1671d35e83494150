"""Sortable ids: a type prefix, 48 bits of milliseconds since 1970, 80 random bits."""

import secrets
import time
from typing import Literal

Prefix = Literal["job", "det", "ds", "ckpt", "key", "plan", "import", "audit", "webhook", "delivery", "sweep"]
"""The type of the object that an id names."""
_CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"
_LENGTH = 26


def new_id(prefix: Prefix) -> str:
    """Return a new id such as `job_01jd3v8q6m4x0c9w2r5t7y1z3b`: the prefix and 26 Crockford base-32 digits.

    Ids of one process sort by time; within one millisecond their order is random.
    """
    number = time.time_ns() // 1_000_000 << 80 | secrets.randbits(80)
    digits = (_CROCKFORD[number >> shift & 31] for shift in range(5 * (_LENGTH - 1), -1, -5))
    return f"{prefix}_{''.join(digits)}"
