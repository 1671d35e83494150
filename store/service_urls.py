"""The URLs of the services that API and workers use: which forms are valid."""

from collections.abc import Callable
from contextlib import suppress
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError


def _validator(is_valid: Callable[[str], bool], forms: str) -> AfterValidator:
    """Return a validator. Its error names the valid forms instead of the URL, which may contain a password."""

    def validate(url: str) -> str:
        with suppress(ArgumentError, ValueError):
            if is_valid(url):
                return url
        raise ValueError(f"must be {forms}")

    return AfterValidator(validate)


def _is_database(url: str) -> bool:
    parsed = make_url(url)
    if parsed.drivername == "sqlite":
        return parsed.database not in (None, "", ":memory:")
    return parsed.drivername in ("postgresql", "postgresql+psycopg")


def _is_broker(url: str) -> bool:
    parsed = urlsplit(url)
    has_valid_port = parsed.port is None or parsed.port > 0  # raises ValueError if it is no number
    return parsed.scheme in ("redis", "rediss", "filesystem") and has_valid_port


def _is_storage(url: str) -> bool:
    parsed = urlsplit(url)
    if not parsed.scheme:
        return True
    if parsed.query or parsed.fragment:
        return False
    if parsed.scheme == "file":
        return parsed.netloc in ("", "localhost") and parsed.path.startswith("/")
    return parsed.scheme == "s3" and bool(parsed.netloc) and parsed.netloc == parsed.hostname


DatabaseUrl = Annotated[str, _validator(_is_database, "sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME")]
BrokerUrl = Annotated[str, _validator(_is_broker, "redis://HOST/NUMBER or filesystem://")]
ArtifactsUrl = Annotated[
    str,
    _validator(
        _is_storage,
        "a folder, file:///FOLDER or s3://BUCKET/PREFIX, with the credentials of S3 in AWS_ACCESS_KEY_ID and so on",
    ),
]
