"""The process environment (`FRS_...`). Everything has a place under one data folder unless told otherwise."""

from pathlib import Path
from typing import Annotated, Any, Self
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy import URL

EXAMPLE_PASSWORD = "change-me"
Folder = Annotated[Path, AfterValidator(Path.absolute)]


def _split(value: Any) -> Any:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _below_data(name: str) -> Any:
    return Field(default_factory=lambda fields: fields["data"] / name)


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="FRS_", frozen=True, hide_input_in_errors=True)

    data: Folder = Path("data").absolute()
    datasets_root: Folder = _below_data("datasets")
    models_root: Folder = _below_data("models")
    uploads_root: Folder = _below_data("uploads")
    """Where uploaded data sets are unpacked."""
    work_root: Folder = _below_data("work")
    """Where trainers keep what is not finished."""
    artifacts_url: str = Field(default_factory=lambda fields: (fields["data"] / "artifacts").as_uri(), repr=False)
    """A folder, its `file://` URL, or `s3://BUCKET/PREFIX`: object storage that speaks S3, its address and credentials
    from `AWS_ENDPOINT_URL`, `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_REGION` and the like."""
    database_url: str = Field(default_factory=lambda fields: _sqlite_url(fields["data"] / "frs.db"), repr=False)
    """`sqlite:///...` or `postgresql://...`; not in the repr, for it may hold a password."""
    broker_url: str = Field(default="filesystem://", repr=False)
    """`redis://...`, or `filesystem://`: folders below `data`, no server."""

    api_key_file: Folder = _below_data("api-key")
    """The first key: made by `python -m store init` where it is not there."""
    heartbeat_file: Path | None = None
    """Where a worker writes the seconds since boot, at every turn in which it reached the database: for a health check."""

    allowed_hosts: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)] = ()
    """`Host` names the API answers under, separated by commas; all where there are none."""

    max_streams_per_key: PositiveInt = 100
    """Streams of events that one API key may have open in one process."""
    max_active_jobs: PositiveInt = 1000
    """Of one owner: jobs that have not ended. A key may say otherwise; so for the next."""
    requests_per_minute: PositiveInt | None = None
    """Of one key, in one API process; null: as many as it likes."""
    auth_failures_per_minute: PositiveInt = 60
    """From one address, before it is answered 429 instead of 401. Valid keys come in from there all the same."""
    max_upload_bytes: PositiveInt = 20_000_000_000
    """Of one archive of a data set, or of one detector's weights."""

    concurrency: PositiveInt | None = None
    """Jobs a worker runs at a time. Absent: as many as it has GPUs, else one."""
    heartbeat_seconds: PositiveFloat = 10
    fence_seconds: PositiveFloat = 45
    """A worker that could not renew for so long, on its own clock, kills its trainer."""
    lease_seconds: PositiveFloat = 60
    reap_seconds: PositiveFloat = 15
    poll_seconds: PositiveFloat = 2
    grace_seconds: PositiveFloat = 30
    """From SIGTERM to SIGKILL for a trainer."""
    stall_timeout_seconds: PositiveFloat = 1800
    """A trainer silent for so long counts as hung; it tells its progress within long evaluations too."""
    step_stall_timeout_seconds: PositiveFloat = 900
    """The same while it trains: within a step, or while it writes a checkpoint."""
    request_timeout_seconds: PositiveFloat = 900
    """For a plan's probe, or for the import of a detector."""
    min_free_mb: NonNegativeInt = 200
    """Less space than this in the data folder, and jobs wait for storage."""

    @model_validator(mode="after")
    def _no_password_is_the_examples(self) -> Self:
        for name in ("database_url", "broker_url"):
            if urlsplit(getattr(self, name)).password == EXAMPLE_PASSWORD:
                raise ValueError(f"FRS_{name.upper()} has the password of .env.example: run `make env`")
        return self

    @model_validator(mode="after")
    def _fence_falls_before_the_lease_ends(self) -> Self:
        if not self.heartbeat_seconds < self.fence_seconds < self.lease_seconds:
            raise ValueError("must be in this order: heartbeat_seconds < fence_seconds < lease_seconds")
        return self

    @property
    def artifacts_root(self) -> Path | None:
        """None: they lie in object storage. Raises ValueError."""
        return None if urlsplit(self.artifacts_url).scheme == "s3" else _folder(self.artifacts_url)

    @property
    def broker_folder(self) -> Path:
        return self.data / "broker"


def _sqlite_url(path: Path) -> str:
    return URL.create("sqlite", database=str(path)).render_as_string(hide_password=False)


def _folder(url: str) -> Path:
    parts = urlsplit(url)
    if parts.scheme not in ("", "file"):
        raise ValueError(f"FRS_ARTIFACTS_URL: {parts.scheme}:// is not supported; name a folder or s3://BUCKET/PREFIX")
    return Path(unquote(parts.path) if parts.scheme else url).absolute()
