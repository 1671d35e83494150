"""The event protocol of a trainer: one JSON object per line.

The engine emits `Event`s. The worker's supervisor reads them from a pipe with `parse`; the command line draws them as a
progress bar.
"""

import time
from collections.abc import Callable
from typing import Annotated, Literal, TextIO

from pydantic import BaseModel, ConfigDict, Discriminator, Field, StringConstraints, TypeAdapter

MAX_LINE = 1 << 20
"""Maximum length of a line, in bytes."""
Number = Annotated[float, Field(allow_inf_nan=False)]
MetricKey = Annotated[str, StringConstraints(pattern=r"^[a-z]+/[A-Za-z0-9_.]+$", max_length=100)]
Role = Literal["teacher", "student"]


class _Event(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="null")
    time: Number = Field(default_factory=time.time)
    """Seconds since 1970, by the trainer's clock."""


class Phase(_Event):
    """A new phase: checking, loading, probing, calibrating, training, evaluating, exporting and others."""

    type: Literal["phase"] = "phase"
    phase: Annotated[str, StringConstraints(pattern=r"^[a-z ]+$", max_length=64)]


class Rewound(_Event):
    """Training starts or resumes at `to_step`; metrics of later steps are void."""

    type: Literal["rewound"] = "rewound"
    to_step: Annotated[int, Field(ge=0)]


class Progress(_Event):
    """Progress of training."""

    type: Literal["progress"] = "progress"
    epoch: int
    epochs: int
    step: int
    steps: int
    fraction: Number
    """Completed fraction of training, 0 to 1."""
    phase_fraction: Number | None = None
    """Completed fraction of the current phase, 0 to 1; emitted by long work between steps."""
    eta_seconds: Number | None = None
    images_per_second: Number | None = None


class Metrics(_Event):
    """Values of one step, by key (`train/...`, `val/...`).

    A value is null if it is not finite, or for an object size without objects.
    """

    type: Literal["metrics"] = "metrics"
    step: Annotated[int, Field(ge=0)]
    epoch: int
    values: dict[MetricKey, Number | None]


class Evaluation(_Event):
    """COCO metrics of one detector on the validation split, 0 to 1; null for an object size without objects."""

    type: Literal["evaluation"] = "evaluation"
    role: Role
    step: int
    epoch: int
    metrics: dict[str, Number | None]
    per_class: dict[str, Number | None]
    images: int
    detections: int
    last: bool = False
    """Whether the evaluation is final: the one after training, or the only one of a teacher or `evaluate` job."""


class Checkpoint(_Event):
    """A complete checkpoint file: written, fsynced, hashed and renamed before this event is emitted."""

    type: Literal["checkpoint"] = "checkpoint"
    kind: Literal["training", "student"]
    path: str
    """Path relative to the work folder."""
    sha256: str
    bytes: int
    step: int
    epoch: int
    labels: tuple[Literal["best", "last"], ...] = ()
    metrics: dict[str, Number | None] = {}


class Artifact(_Event):
    """A result file other than a checkpoint, such as the resolved config or the safetensors copy."""

    type: Literal["artifact"] = "artifact"
    name: str
    path: str
    """Path relative to the work folder."""
    sha256: str
    bytes: int


class Facts(_Event):
    """Values for the report that only the engine has: parameters, chosen weights, hashes, versions."""

    type: Literal["facts"] = "facts"
    values: dict[str, object]


class Log(_Event):
    """A log message."""

    type: Literal["log"] = "log"
    level: Literal["debug", "info", "warning", "error"] = "info"
    message: Annotated[str, Field(max_length=16_384)]


class ErrorInfo(BaseModel):
    """An error as it is sent on the wire."""

    code: str
    message: str
    hint: str = ""


class Outcome(_Event):
    """The last event of a trainer that ended in an orderly way."""

    type: Literal["outcome"] = "outcome"
    status: Literal["succeeded", "failed", "interrupted"]
    end_reason: str | None = None
    error: ErrorInfo | None = None


Event = Phase | Rewound | Progress | Metrics | Evaluation | Checkpoint | Artifact | Facts | Log | Outcome
Emit = Callable[[Event], None]
_event: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Discriminator("type")])


def parse(line: str | bytes) -> Event:
    """Return the event of one line. Raise ValueError (pydantic's) if the line is not a valid event."""
    return _event.validate_json(line)


def lines_to(stream: TextIO) -> Emit:
    """Return an `Emit` that writes each event to `stream` as a JSON line and flushes it."""

    def emit(event: Event) -> None:
        stream.write(event.model_dump_json() + "\n")
        stream.flush()

    return emit


def to_all(*sinks: Emit) -> Emit:
    """Return an `Emit` that passes each event to all `sinks`."""

    def emit(event: Event) -> None:
        for sink in sinks:
            sink(event)

    return emit
