"""Schemas and parameter types that several resources share."""

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Generic, TypeVar

from fastapi import Path
from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    SerializeAsAny,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from frs.names import Name


def _from_seconds(value: Any) -> Any:
    return datetime.fromtimestamp(value, UTC) if isinstance(value, int | float) else value


def _require_iso_format(value: Any) -> Any:
    """Reject bare numbers, which pydantic would read as seconds, or as milliseconds if they are large."""
    if not isinstance(value, datetime) and not _DATE.match(str(value)):
        raise ValueError("must be a time such as 2026-11-24T12:00:00Z")
    return value


def _keep_unreadable(value: Any, read: ValidatorFunctionWrapHandler) -> Any:
    try:
        return read(value)
    except ValidationError:
        return value


_DATE = re.compile(r"\d{4}-\d\d-\d\d[Tt ]")
RequestTime = Annotated[AwareDatetime, BeforeValidator(_require_iso_format)]
"""A time in a request: RFC 3339 with an offset."""
ResponseTime = Annotated[datetime, BeforeValidator(_from_seconds)]
"""A time in a response: RFC 3339 in UTC, converted from the database's seconds since 1970."""
T = TypeVar("T")
AsStored = Annotated[SerializeAsAny[T], WrapValidator(_keep_unreadable)]
"""A stored document in a response. One that another version wrote and this one cannot read is returned as it is."""
JobId = Annotated[str, Path(pattern=r"^job_[0-9a-z]{26}$")]
SweepId = Annotated[str, Path(pattern=r"^sweep_[0-9a-z]{26}$")]
KeyId = Annotated[str, Path(pattern=r"^key_[0-9a-z]{26}$")]
CheckpointId = Annotated[str, Path(pattern=r"^ckpt_[0-9a-z]{26}$")]
WebhookId = Annotated[str, Path(pattern=r"^webhook_[0-9a-z]{26}$")]
DeliveryId = Annotated[str, Path(pattern=r"^delivery_[0-9a-z]{26}$")]
ArtifactName = Annotated[str, Path(pattern=r"^[A-Za-z0-9._-]{1,100}$")]
IdOrName = Annotated[Name, Path(description="The id or the name.")]


class ResponseModel(BaseModel):
    """Base of the response schemas: immutable, built from database rows, documented by attribute docstrings."""

    model_config = ConfigDict(frozen=True, from_attributes=True, protected_namespaces=(), use_attribute_docstrings=True)


class Page(ResponseModel, Generic[T]):
    """One page of a list."""

    data: list[T]
    """Rows of the page."""
    next_cursor: str | None = None
    """Value of `cursor` for the next page; null on the last page."""
