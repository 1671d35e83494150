"""Sortable ids: a prefix that says what it is, 48 bits of milliseconds, 80 random bits."""

import secrets
import time
from typing import Literal

Prefix = Literal["job", "det", "ds", "ckpt", "key", "plan", "import"]
_CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"
_LENGTH = 26


def new_id(prefix: Prefix) -> str:
    """Such as `job_01jd3v8q6m4x0c9w2r5t7y1z3b`. Ids of one process sort by time, within a millisecond at random."""
    number = time.time_ns() // 1_000_000 << 80 | secrets.randbits(80)
    digits = (_CROCKFORD[number >> shift & 31] for shift in range(5 * (_LENGTH - 1), -1, -5))
    return f"{prefix}_{''.join(digits)}"
