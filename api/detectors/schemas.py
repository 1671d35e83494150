"""Detectors as the API takes and shows them."""

from typing import Annotated, Any, Self

from pydantic import Discriminator, Field, StringConstraints, Tag, field_validator, model_validator

from api.http.schemas import ResponseModel, ResponseTime
from frs.dataset.fields import is_text
from frs.events import ErrorInfo
from frs.spec import ConfigDetector, DescribedDetector, Name, RelativePath, Spec
from store.states import DetectorStatus

ClassName = Annotated[str, StringConstraints(min_length=1, max_length=200)]


def _stock_or_described(value: Any) -> str | None:
    stock = "config" in value if isinstance(value, dict) else isinstance(value, ConfigDetector)
    return "config" if stock else "architecture"


Description = Annotated[
    Annotated[ConfigDetector, Tag("config")] | Annotated[DescribedDetector, Tag("architecture")],
    Discriminator(_stock_or_described),
]


class DetectorCreate(Spec):
    """Either `description` with `weights`, or `job`: the last student of a job that has succeeded."""

    name: Name
    description: Description | None = None
    weights: RelativePath | None = None
    """File below the folder of models: a torch file that holds a `state_dict`, or a .safetensors file."""
    classes: Annotated[tuple[ClassName, ...], Field(min_length=1, max_length=20_000)] | None = None
    """In the order of the labels. Absent: compared only when a job reads the weights."""
    job: Annotated[str, StringConstraints(pattern=r"^job_[0-9a-z]{26}$")] | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        described = self.description is not None and self.weights is not None
        if self.job is not None and (self.description or self.weights or self.classes):
            raise ValueError("`job` stands alone: description, weights and classes are those of its student")
        if self.job is None and not described:
            raise ValueError("give `description` and `weights`, or `job`")
        return self


class DetectorUpload(Spec):
    """In the query of an upload. Either `config`, or `architecture` with what differs from its stock config."""

    name: Name
    config: str | None = None
    """Such as `mmdet::gfl/gfl_r50_fpn_1x_coco.py`."""
    architecture: str | None = None
    depth: int | None = None
    """Of the backbone; so are `width` and `norm`."""
    width: int | None = None
    norm: str | None = None
    neck_channels: int | None = None
    stacked_convs: int | None = None
    classes: Annotated[str, StringConstraints(min_length=1, max_length=20_000)] | None = None
    """Separated by commas, in the order of the labels; what the file itself says counts more."""

    @model_validator(mode="after")
    def _one_description(self) -> Self:
        if (self.config is None) is (self.architecture is None):
            raise ValueError("give `config` or `architecture`, one of the two")
        parts = (self.depth, self.width, self.norm, self.neck_channels, self.stacked_convs)
        if self.config is not None and any(part is not None for part in parts):
            raise ValueError("depth, width, norm, neck_channels and stacked_convs belong to `architecture`")
        return self

    @field_validator("classes")
    @classmethod
    def _names(cls, classes: str | None) -> str | None:
        names = _split(classes) if classes else []
        if not all(is_text(name, 200) for name in names) or len(set(names)) < len(names):
            raise ValueError("must be names of 1 to 200 characters, each once, separated by commas")
        return classes

    @property
    def class_names(self) -> list[str] | None:
        return None if self.classes is None else _split(self.classes)


def _split(classes: str) -> list[str]:
    return [name.strip() for name in classes.split(",")]


class Detector(ResponseModel):
    id: str
    name: str
    status: DetectorStatus
    """`importing`: a worker has still to read the uploaded file. `refused`: `error` says why."""
    error: ErrorInfo | None
    description: ConfigDetector | DescribedDetector
    weights_file: str | None
    """Below the folder of models; null for a job's student and for an upload."""
    job_id: str | None
    """The job that trained it."""
    sha256: str
    """Of the weights."""
    classes: list[str] | None
    created_at: ResponseTime
