"""API keys: 256 random bits each. The database keeps a SHA-256, which is enough for something nobody can guess."""

import hashlib
import os
import secrets
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from store.tables import ApiKey

PREFIX_LENGTH = 8


def new_token() -> str:
    return f"frs_{secrets.token_urlsafe(32)}"


def add(session: Session, name: str, token: str) -> ApiKey:
    key = ApiKey(name=name, prefix=token[:PREFIX_LENGTH], sha256=digest(token))
    session.add(key)
    session.flush()
    return key


def find(session: Session, token: str) -> ApiKey | None:
    """The key, unless it was revoked. Looked up by digest, so its timing says nothing about the token."""
    return session.scalar(select(ApiKey).where(ApiKey.sha256 == digest(token), ApiKey.revoked_at.is_(None)))


def digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def ensure_file(session: Session, path: Path) -> None:
    """Makes the first key, readable by its owner alone, or makes an existing file's key known to the database.

    The file comes first: after a crash between the two, the next call finds it. A revoked key stays revoked.
    """
    if not path.exists():
        _write_private(path, new_token())
    token = path.read_text().strip()
    if session.scalar(select(ApiKey.id).where(ApiKey.sha256 == digest(token))) is None:
        add(session, "first key", token)


def _write_private(path: Path, text: str) -> None:
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    part.touch(mode=0o600, exist_ok=False)
    with part.open("w") as file:
        file.write(f"{text}\n")
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
