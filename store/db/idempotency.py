"""Requests with an `Idempotency-Key`: one that is repeated creates nothing."""

import hashlib
from dataclasses import asdict, dataclass
from typing import Self, TypeVar

from pydantic import BaseModel
from sqlalchemy import select
from sqlalchemy.orm import Mapped, Session

from store.errors import AlreadyCreated, IdempotencyKeyReused


class CreatedOnce:
    """Columns of a row that a request with an `Idempotency-Key` has created, unique within the owner."""

    id: Mapped[str]
    owner: Mapped[str]
    idempotency_key: Mapped[str | None]
    """The request's `Idempotency-Key`."""
    idempotency_digest: Mapped[str | None]
    """Digest of the request's content, to detect a different request under the same key."""


T = TypeVar("T", bound=CreatedOnce)


@dataclass(frozen=True)
class Idempotency:
    """The client's `Idempotency-Key`, and a digest of the request that it was sent with."""

    key: str
    digest: str

    @classmethod
    def of(cls, key: str | None, request: BaseModel, *path: str) -> Self | None:
        """Return the key with the SHA-256 of the normalised request; None without a key.

        Fields with their default values do not count, so that a request may be repeated across an upgrade that adds
        fields or changes defaults. `path`: whatever else distinguishes the request from others under the same key.
        """
        if key is None:
            return None
        return cls(
            key, hashlib.sha256("".join([*path, request.model_dump_json(exclude_defaults=True)]).encode()).hexdigest()
        )


def columns(idempotency: Idempotency | None) -> dict[str, str]:
    """Return the values of the columns of a new row."""
    return {f"idempotency_{name}": value for name, value in asdict(idempotency).items()} if idempotency else {}


def find_repeated(session: Session, table: type[T], owner: str, idempotency: Idempotency | None) -> T | None:
    """Return the row that the owner created with this key; None if there is none.

    Raises IdempotencyKeyReused if it was a different request.
    """
    if idempotency is None:
        return None
    earlier = session.scalar(select(table).where(table.owner == owner, table.idempotency_key == idempotency.key))
    if earlier is not None and earlier.idempotency_digest != idempotency.digest:
        raise IdempotencyKeyReused("This Idempotency-Key was used for a different request.")
    return earlier


def refuse_repeated(session: Session, table: type[T], owner: str, idempotency: Idempotency | None) -> None:
    """Raise AlreadyCreated if the owner has sent this request before; its answer had a secret, which is shown once.

    The caller has locked the owner. Raises IdempotencyKeyReused as `find_repeated` does.
    """
    earlier = find_repeated(session, table, owner, idempotency)
    if earlier is not None:
        raise AlreadyCreated(earlier.id)
