"""The line protocol between a trainer and whoever watches it: one JSON object per line.

The engine emits `Event`s; the supervisor reads them from a pipe (`parse`), the command line draws them as a bar.
"""

import time
from collections.abc import Callable
from typing import Annotated, Literal, TextIO

from pydantic import BaseModel, ConfigDict, Discriminator, Field, StringConstraints, TypeAdapter

MAX_LINE = 1 << 20
Number = Annotated[float, Field(allow_inf_nan=False)]
MetricKey = Annotated[str, StringConstraints(pattern=r"^[a-z]+/[A-Za-z0-9_.]+$", max_length=100)]
Role = Literal["teacher", "student"]


class _Event(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="null")
    time: Number = Field(default_factory=time.time)
    """Seconds since 1970, on the trainer's clock."""


class Phase(_Event):
    """What the trainer is busy with: checking, loading, probing, calibrating, training, evaluating, exporting."""

    type: Literal["phase"] = "phase"
    phase: Annotated[str, StringConstraints(pattern=r"^[a-z ]+$", max_length=64)]


class Rewound(_Event):
    """Training (re)starts at `to_step`; every metric of a later step is void."""

    type: Literal["rewound"] = "rewound"
    to_step: Annotated[int, Field(ge=0)]


class Progress(_Event):
    type: Literal["progress"] = "progress"
    epoch: int
    epochs: int
    step: int
    steps: int
    fraction: Number
    phase_fraction: Number | None = None
    """How much of the phase at hand is done, for long work between steps."""
    eta_seconds: Number | None = None
    images_per_second: Number | None = None


class Metrics(_Event):
    """Values of one step, one row each: `train/...`, `val/...`. Null: a size without objects."""

    type: Literal["metrics"] = "metrics"
    step: Annotated[int, Field(ge=0)]
    epoch: int
    values: dict[MetricKey, Number | None]


class Evaluation(_Event):
    """COCO metrics of one detector on the validation split. A size without objects is null."""

    type: Literal["evaluation"] = "evaluation"
    role: Role
    step: int
    epoch: int
    metrics: dict[str, Number | None]
    per_class: dict[str, Number | None]
    images: int
    detections: int
    last: bool = False
    """The one that counts: the end of training, or a teacher's or `evaluate` job's only one."""


class Checkpoint(_Event):
    """A file that is whole: written, fsynced, hashed and renamed before it is announced."""

    type: Literal["checkpoint"] = "checkpoint"
    kind: Literal["training", "student"]
    path: str
    """Relative to the work folder."""
    sha256: str
    bytes: int
    step: int
    epoch: int
    labels: tuple[Literal["best", "last"], ...] = ()
    metrics: dict[str, Number | None] = {}


class Artifact(_Event):
    """A deliverable that is no checkpoint: the resolved config, the safetensors safetensors_copy."""

    type: Literal["artifact"] = "artifact"
    name: str
    path: str
    sha256: str
    bytes: int


class Facts(_Event):
    """What the report needs and only the engine knows: parameters, chosen weights, hashes, versions."""

    type: Literal["facts"] = "facts"
    values: dict[str, object]


class Log(_Event):
    type: Literal["log"] = "log"
    level: Literal["debug", "info", "warning", "error"] = "info"
    message: Annotated[str, Field(max_length=16_384)]


class ErrorInfo(BaseModel):
    code: str
    message: str
    hint: str = ""


class Outcome(_Event):
    """The last line of a trainer that ended in an orderly way."""

    type: Literal["outcome"] = "outcome"
    status: Literal["succeeded", "failed", "interrupted"]
    end_reason: str | None = None
    error: ErrorInfo | None = None


Event = Phase | Rewound | Progress | Metrics | Evaluation | Checkpoint | Artifact | Facts | Log | Outcome
Emit = Callable[[Event], None]
_event: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Discriminator("type")])


def parse(line: str | bytes) -> Event:
    """One line of the protocol. Raises ValueError (pydantic's) for anything else; the trainer's output is data."""
    return _event.validate_json(line)


def lines_to(stream: TextIO) -> Emit:
    """The JSON lines reader: every event on its own line, flushed, so that it can be a pipe."""

    def emit(event: Event) -> None:
        stream.write(event.model_dump_json() + "\n")
        stream.flush()

    return emit


def to_all(*sinks: Emit) -> Emit:
    def emit(event: Event) -> None:
        for sink in sinks:
            sink(event)

    return emit
