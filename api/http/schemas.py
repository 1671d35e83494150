"""What answers of several resources are made of."""

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Generic, TypeVar

from fastapi import Path
from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict

from frs.spec import Name


def _from_seconds(value: Any) -> Any:
    return datetime.fromtimestamp(value, UTC) if isinstance(value, int | float) else value


def _written_out(value: Any) -> Any:
    """Pydantic would read a bare number as seconds, or as milliseconds where it is large."""
    if not isinstance(value, datetime) and not _DATE.match(str(value)):
        raise ValueError("must be a time such as 2026-11-24T12:00:00Z")
    return value


_DATE = re.compile(r"\d{4}-\d\d-\d\d[Tt ]")
RequestTime = Annotated[AwareDatetime, BeforeValidator(_written_out)]
"""A time in a request: RFC 3339, with its offset."""
ResponseTime = Annotated[datetime, BeforeValidator(_from_seconds)]
"""RFC 3339, UTC; made from seconds since 1970, as the database keeps them."""
T = TypeVar("T")
JobId = Annotated[str, Path(pattern=r"^job_[0-9a-z]{26}$")]
KeyId = Annotated[str, Path(pattern=r"^key_[0-9a-z]{26}$")]
CheckpointId = Annotated[str, Path(pattern=r"^ckpt_[0-9a-z]{26}$")]
ArtifactName = Annotated[str, Path(pattern=r"^[A-Za-z0-9._-]{1,100}$")]
IdOrName = Annotated[Name, Path(description="Its id or its name.")]


class ResponseModel(BaseModel):
    model_config = ConfigDict(frozen=True, from_attributes=True, protected_namespaces=(), use_attribute_docstrings=True)


class Page(ResponseModel, Generic[T]):
    data: list[T]
    next_cursor: str | None = None
    """Give it back as `cursor` for the next page; null on the last one."""
