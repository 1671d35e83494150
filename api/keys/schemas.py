"""API keys as the API takes and shows them: the token once, its hash never."""

from typing import Annotated, Self

from pydantic import Field, StringConstraints, model_validator

from api.http.schemas import RequestTime, ResponseModel, ResponseTime
from frs.spec import Name, Spec
from store.db.api_keys import Scope

Owner = Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]*$")]
Number = Annotated[int, Field(ge=1, le=1_000_000)]


class KeyCreate(Spec):
    name: Name
    """What it is for; need not be unique."""
    owner: Owner
    """Keys of one owner see the same jobs, data sets and detectors."""
    scopes: Annotated[tuple[Scope, ...], Field(min_length=1, max_length=3)] = (Scope.SUBMIT,)
    """`read` looks, `submit` also posts, changes and deletes, `admin` also sees every owner's and makes keys."""
    max_active_jobs: Number | None = None
    """Jobs of its owner that may wait, run or pause at a time; null: as `FRS_MAX_ACTIVE_JOBS` says."""
    requests_per_minute: Number | None = None
    """Null: as `FRS_REQUESTS_PER_MINUTE` says."""
    expires_at: RequestTime | None = None
    expires_in_days: Annotated[float, Field(gt=0, le=36_500)] | None = None
    """In place of `expires_at`. Without either it never expires."""

    @model_validator(mode="after")
    def _one_end(self) -> Self:
        if self.expires_at and self.expires_in_days:
            raise ValueError("give `expires_at` or `expires_in_days`, not both")
        return self


class Key(ResponseModel):
    id: str
    name: str
    prefix: str
    """The token's first characters, to tell keys apart by."""
    owner: str
    scopes: list[Scope]
    max_active_jobs: int | None
    requests_per_minute: int | None
    created_at: ResponseTime
    expires_at: ResponseTime | None
    revoked_at: ResponseTime | None


class NewKey(Key):
    token: str
    """Shown this once: `Authorization: Bearer TOKEN`."""
