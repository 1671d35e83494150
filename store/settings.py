"""Settings of the API and the workers, read from environment variables with the prefix `FRS_`."""

from pathlib import Path
from typing import Annotated, Any, Self
from urllib.parse import unquote, urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    IPvAnyNetwork,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    SecretStr,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy import URL

from store.service_urls import ArtifactsUrl, BrokerUrl, DatabaseUrl
from store.states import Scope

EXAMPLE_PASSWORD = "change-me"
"""The placeholder password of `.env.example`; settings that contain it are invalid."""
MAIL_ADDRESS = r"[A-Za-z0-9._+-]{1,64}@[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63}){0,8}"
"""Regular expression of the addresses of mail: the plain ones."""
Folder = Annotated[Path, AfterValidator(Path.absolute)]
"""A path, made absolute relative to the working directory."""

Origin = Annotated[str, Field(pattern=r"^(\*|https?://[^/\s]+)$")]
"""Scheme, host and port of a web page, or `*`."""
HttpUrl = Annotated[str, Field(pattern=r"^https?://[^/\s]+(/\S*)?$")]
"""Address of a server, perhaps with a path."""


def _split(value: Any) -> Any:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _split_pairs(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    parts = _split(value)
    if wrong := [part for part in parts if "=" not in part]:
        raise ValueError(f"`{wrong[0]}` is not of the form GROUP=SCOPE")
    return dict(part.rsplit("=", 1) for part in parts)


def _below_data(name: str) -> Any:
    return Field(default_factory=lambda fields: fields["data"] / name)


class Settings(BaseSettings):
    """All settings; `FRS_DATA` sets `data`, and so on. By default every file lies below `data`.

    An empty variable counts as not set.
    """

    model_config = SettingsConfigDict(
        env_prefix="FRS_",
        env_ignore_empty=True,
        frozen=True,
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
    )

    data: Folder = Path("data").absolute()
    """Folder of all files of the service. Default: `data` in the working directory."""
    datasets_root: Folder = _below_data("datasets")
    """Folder of the data sets that are registered by path; their paths are relative to it. Default: `datasets` below
    `data`."""
    models_root: Folder = _below_data("models")
    """Folder of weights files that specs and detectors refer to by path. Default: `models` below `data`."""
    uploads_root: Folder = _below_data("uploads")
    """Folder that uploaded data sets are unpacked into. Default: `uploads` below `data`."""
    work_root: Folder = _below_data("work")
    """Folder of the unfinished files of running attempts. Default: `work` below `data`."""
    artifacts_url: ArtifactsUrl = Field(
        default_factory=lambda fields: (fields["data"] / "artifacts").as_uri(), repr=False
    )
    """Storage of checkpoints and deliverables: a folder, its `file://` URL, or `s3://BUCKET/PREFIX` for S3-compatible
    object storage. The endpoint and credentials come from `AWS_ENDPOINT_URL`, `AWS_ACCESS_KEY_ID`,
    `AWS_SECRET_ACCESS_KEY`, `AWS_REGION` and the other standard AWS variables. Default: `artifacts` below `data`."""
    database_url: DatabaseUrl = Field(default_factory=lambda fields: _sqlite_url(fields["data"] / "frs.db"), repr=False)
    """Database: `sqlite:///...` or `postgresql://...`. Excluded from the repr because it may contain a password.
    Default: the SQLite file `frs.db` below `data`."""
    database_owner_url: DatabaseUrl | None = Field(default=None, repr=False)
    """PostgreSQL database as the role that owns the tables, for `python -m store init` alone: it migrates as this role
    and grants the role of `database_url` its rights, which do not allow changes of the audit trail. Leave it out of the
    environment of API and workers. Default: none; `database_url` is the owner."""
    broker_url: BrokerUrl = Field(default="filesystem://", repr=False)
    """Celery broker of the wake-up messages: `redis://...`, or `filesystem://` for folders below `data` without a
    server. With Redis, several API processes apply the limits of a key together. Default: `filesystem://`."""

    api_key_file: Folder = _below_data("api-key")
    """File of the first API key; `python -m store init` creates it if it does not exist. Default: `api-key` below
    `data`."""
    metrics_key_file: Folder | None = None
    """File of an API key with the scope `metrics`, for Prometheus; `python -m store init` adds the key to the database.
    Default: none."""
    heartbeat_file: Path | None = None
    """File for health checks of a worker: the worker writes the seconds since boot into it whenever it has reached the
    database. Default: none."""

    allowed_hosts: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)] = ()
    """Accepted values of the `Host` header, separated by commas. Default: empty, which accepts every host."""
    allowed_origins: Annotated[tuple[Origin, ...], NoDecode, BeforeValidator(_split)] = ()
    """Origins of web pages that may call the API (CORS), separated by commas, such as `https://board.example.org`; `*`
    allows all. Requests need an API key all the same. Default: none."""
    root_path: Annotated[str, Field(pattern=r"^(/[A-Za-z0-9._~-]+)*$")] = ""
    """Path prefix under which a reverse proxy serves the API, such as `/frs`, whether the proxy removes it or not. Must
    not be the beginning of a path of the API. Default: none."""

    oidc_issuer: (
        Annotated[str, Field(pattern=r"^(https://|http://(localhost|127\.0\.0\.1|\[::1\])[:/])\S*$")] | None
    ) = None
    """Issuer of an OpenID Connect provider whose tokens are accepted beside API keys, such as
    `https://login.example.org/realms/team`. Default: none."""
    oidc_audience: str | None = None
    """Audience (`aud`) that a token must have; required with `oidc_issuer`. Default: none."""
    oidc_owner_claim: str = "sub"
    """Claim with the name of the user as owner, such as `sub` or `email`. Users must not be able to change it."""
    oidc_groups_claim: str = "groups"
    """Claim with the groups of the user. With the header `FRS-Project: GROUP`, a request is made for the owner of that
    name, whose rows the whole group shares."""
    oidc_scopes: Annotated[dict[str, Scope], NoDecode, BeforeValidator(_split_pairs)] = {"*": Scope.SUBMIT}
    """Scopes of users by group, `GROUP=SCOPE` separated by commas, such as `*=read,vision=submit,operators=admin`; `*`
    are all users. Default: `*=submit`."""

    max_streams_per_key: PositiveInt = 100
    """Maximum number of event streams that one API key may have open, counted like `requests_per_minute`."""
    max_active_jobs: PositiveInt = 1000
    """Maximum number of jobs of one owner that have not ended. An API key may override it."""
    requests_per_minute: PositiveInt | None = None
    """Maximum number of requests per minute of one API key; in each API process unless the broker is Redis. An API key
    may override it. Default: unlimited."""
    auth_failures_per_minute: PositiveInt = 60
    """Maximum number of requests per minute with an invalid API key from one address, counted like
    `requests_per_minute`; further ones are answered 429 instead of 401. Requests with a valid key from that address are
    still accepted."""
    max_disk_bytes: PositiveInt = 200_000_000_000
    """Maximum size in bytes of the stored files of one owner: checkpoints, deliverables and uploads. Above it, uploads
    and new jobs are refused; running jobs continue. An API key may override it."""
    max_upload_bytes: PositiveInt = 20_000_000_000
    """Maximum size of one upload in bytes: a data set's archive or a detector's weights."""

    webhook_allowed_networks: Annotated[tuple[IPvAnyNetwork, ...], NoDecode, BeforeValidator(_split)] = ()
    """Networks that webhooks may reach beside public addresses, separated by commas, such as `10.1.0.0/16`; the service
    connects to any port in them. Default: none, so no private, local or reserved address."""
    max_webhooks: PositiveInt = 20
    """Maximum number of webhooks of one owner."""

    smtp_url: Annotated[str, Field(pattern=r"^smtps?://")] | None = Field(default=None, repr=False)
    """Mail server for events of jobs: `smtp://USER:PASSWORD@HOST:587`, with STARTTLS if it offers it or has a password,
    or `smtps://...:465`. Default: none, so no mail."""
    smtp_from: Annotated[str, Field(pattern=rf"^{MAIL_ADDRESS}$")] | None = None
    """Sender's address of the mails. Default: none; `FRS_SMTP_URL` needs it."""
    mail_domains: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)] = ()
    """Domains of the addresses that receive mail, separated by commas. Default: that of `FRS_SMTP_FROM`."""

    worker_name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")] | None = None
    """Name of the worker in `GET /workers`, metrics and alerts; each worker needs its own. Default: a name stored below
    `data`, which the worker keeps when it is restarted."""
    concurrency: PositiveInt | None = None
    """Number of jobs that a worker runs at a time. Default: the number of its GPUs, or 1 without GPUs."""
    heartbeat_seconds: PositiveFloat = 10
    """Seconds between two renewals of a lease."""
    fence_seconds: PositiveFloat = 45
    """Seconds, on the worker's own clock, without a successful renewal after which the worker kills its trainer. Must
    lie between `heartbeat_seconds` and `lease_seconds`."""
    lease_seconds: PositiveFloat = 60
    """Seconds until a lease expires unless it is renewed; the job is then returned to the queue."""
    reap_seconds: PositiveFloat = 15
    """Seconds between two searches for expired leases and unused work folders."""
    poll_seconds: PositiveFloat = 2
    """Mean seconds between two queries of an idle worker for new jobs; longer after database failures."""
    grace_seconds: PositiveFloat = 30
    """Seconds between SIGTERM and SIGKILL for a trainer, in which it can save a checkpoint. The worker image sets 60;
    `FRS_WORKER_STOP_GRACE` of the compose file must be longer."""
    stall_timeout_seconds: PositiveFloat = 1800
    """Seconds without an event after which a trainer counts as hung. Trainers also report progress during long
    evaluations."""
    step_stall_timeout_seconds: PositiveFloat = 900
    """Like `stall_timeout_seconds`, for the phase `training`: within a step, or while a checkpoint is written."""
    request_timeout_seconds: PositiveFloat = 900
    """Timeout in seconds of a plan's probe or of the import of a detector."""
    keep_jobs_days: PositiveFloat | None = None
    """Days after their end in which jobs are kept; a worker then removes them with all their files. A run group is kept
    as a whole, and if one of its jobs has the tag `keep`. Default: for ever."""
    keep_checkpoints_days: PositiveFloat | None = None
    """Days after their end in which failed and cancelled jobs keep their training checkpoints; a job that is resumed
    later starts again. Students are kept. Succeeded jobs have no training checkpoints. Default: as long as the job."""
    keep_metrics_days: PositiveFloat | None = None
    """Days after their end in which jobs keep their metric curves. Evaluations are kept. Default: as long as the
    job."""
    mlflow_url: Annotated[HttpUrl | None, Field(repr=False)] = None
    """Address of an MLflow server, such as `https://mlflow.example.org`. Workers forward metrics, parameters and result
    files of every job to it. May contain a user name and a password. Default: none."""
    mlflow_token: SecretStr | None = None
    """Bearer token for the MLflow server. Default: none."""
    mlflow_experiment: str = "frs"
    """MLflow experiment of the runs; it is created if it does not exist."""
    wandb_project: Annotated[str, Field(pattern=r"^([\w.-]+/)?[\w.-]+$")] | None = None
    """W&B project, or `ENTITY/PROJECT`. Workers forward metrics, parameters and result files of every job to it. Needs
    `pip install 'frs-distill[wandb]'` on the workers; their image has it. Default: none."""
    wandb_api_key: SecretStr | None = None
    """API key for W&B. Default: none, which writes the runs to `wandb` below `data`, for `wandb sync`."""
    wandb_url: HttpUrl | None = None
    """Address of a W&B server of your own. Default: W&B's cloud."""
    min_free_mb: NonNegativeInt = 200
    """Minimum free space in MiB on the disks of `work_root` and the artifacts folder; below it, jobs wait with the
    reason `waiting_for_storage`."""

    @model_validator(mode="after")
    def _reject_example_password(self) -> Self:
        for name in ("database_url", "database_owner_url", "broker_url"):
            if urlsplit(getattr(self, name) or "").password == EXAMPLE_PASSWORD:
                raise ValueError(f"FRS_{name.upper()} contains the password of .env.example: run `make env`")
        return self

    @model_validator(mode="after")
    def _require_server(self) -> Self:
        if self.database_owner_url and "sqlite" in (
            urlsplit(self.database_url).scheme,
            urlsplit(self.database_owner_url).scheme,
        ):
            raise ValueError("FRS_DATABASE_OWNER_URL is for PostgreSQL; FRS_DATABASE_URL must be postgresql://..., too")
        return self

    @model_validator(mode="after")
    def _check_mail(self) -> Self:
        if self.smtp_url and not (self.smtp_from and _has_port(self.smtp_url)):
            raise ValueError("FRS_SMTP_URL needs a port, such as 587, and FRS_SMTP_FROM")
        return self

    @model_validator(mode="after")
    def _check_lease_order(self) -> Self:
        if not self.heartbeat_seconds < self.fence_seconds < self.lease_seconds:
            raise ValueError("invalid order: required is heartbeat_seconds < fence_seconds < lease_seconds")
        return self

    @model_validator(mode="after")
    def _require_audience(self) -> Self:
        if (self.oidc_issuer is None) != (self.oidc_audience is None):
            raise ValueError("FRS_OIDC_ISSUER and FRS_OIDC_AUDIENCE belong together: set both or none")
        return self

    @property
    def artifacts_root(self) -> Path | None:
        """The folder of the artifacts, or None if they are in object storage."""
        parts = urlsplit(self.artifacts_url)
        if parts.scheme == "s3":
            return None
        return Path(unquote(parts.path) if parts.scheme else self.artifacts_url).absolute()

    @property
    def redis_url(self) -> str | None:
        """The URL of the broker if it is Redis."""
        return self.broker_url if urlsplit(self.broker_url).scheme in ("redis", "rediss") else None

    @property
    def broker_folder(self) -> Path:
        """The folder of the `filesystem://` broker."""
        return self.data / "broker"


def _sqlite_url(path: Path) -> str:
    return URL.create("sqlite", database=str(path)).render_as_string(hide_password=False)


def _has_port(url: str) -> bool:
    """Return whether the URL has a valid port; urllib's error would repeat a part of the URL, such as a password."""
    try:
        return urlsplit(url).port is not None
    except ValueError:
        return False
