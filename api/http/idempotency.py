"""The header with which a client repeats a request that creates something, without creating it twice."""

from typing import Annotated

from fastapi import Header

IdempotencyKey = Annotated[
    str | None, Header(alias="Idempotency-Key", min_length=1, max_length=255, pattern=r"^[\x21-\x7e]+$")
]
REPLAYED = {"Idempotency-Replayed": "true"}
"""Header of the answer to a repeated request, which has what the first one created."""
