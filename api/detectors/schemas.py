"""Request and response models of detectors."""

from typing import Annotated, Any, Self

from pydantic import Discriminator, Field, StringConstraints, Tag, field_validator, model_validator

from api.http.schemas import AsStored, ResponseModel, ResponseTime
from frs.dataset.fields import is_text
from frs.detector_spec import ConfigDetector, DescribedDetector, JobId, RelativePath
from frs.events import ErrorInfo
from frs.names import Name
from frs.spec_model import Spec
from store.states import DetectorStatus

ClassName = Annotated[str, StringConstraints(min_length=1, max_length=200)]


def _description_tag(value: Any) -> str | None:
    has_config = "config" in value if isinstance(value, dict) else isinstance(value, ConfigDetector)
    return "config" if has_config else "architecture"


Description = Annotated[
    Annotated[ConfigDetector, Tag("config")] | Annotated[DescribedDetector, Tag("architecture")],
    Discriminator(_description_tag),
]


class DetectorCreate(Spec):
    """A detector to register: either `description` and `weights`, or `job`."""

    name: Name
    """Unique among the detectors of the owner."""
    description: Description | None = None
    """Architecture of the detector, or a base config of mmdet."""
    weights: RelativePath | None = None
    """File in the folder of models: a torch file with a `state_dict`, or a .safetensors file."""
    classes: Annotated[tuple[ClassName, ...], Field(min_length=1, max_length=20_000)] | None = None
    """Class names in the order of the labels. If omitted, a job compares the classes when it loads the weights."""
    job: JobId | None = None
    """Id of a succeeded job; its last student becomes the detector."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        described = self.description is not None and self.weights is not None
        if self.job is not None and (self.description or self.weights or self.classes):
            raise ValueError("`job` excludes `description`, `weights` and `classes`: those of its student are used")
        if self.job is None and not described:
            raise ValueError("set `description` and `weights`, or `job`")
        return self


class DetectorUpload(Spec):
    """Query parameters of an upload."""

    name: Name
    """Unique among the detectors of the owner."""
    description: Annotated[str, StringConstraints(min_length=1, max_length=1000)]
    """Architecture of the detector, or a base config of mmdet, as JSON, such as `{"architecture": "gfl"}`."""
    classes: Annotated[str, StringConstraints(min_length=1, max_length=20_000)] | None = None
    """Class names, separated by commas, in the order of the labels. They must be those in the file, if it names any."""

    @field_validator("classes")
    @classmethod
    def _check_names(cls, classes: str | None) -> str | None:
        names = _split_names(classes) if classes else []
        if not all(is_text(name, 200) for name in names) or len(set(names)) < len(names):
            raise ValueError("must be distinct names of 1 to 200 characters, separated by commas")
        return classes

    @property
    def class_names(self) -> list[str] | None:
        """Class names in the order of the labels; None if they were not sent."""
        return None if self.classes is None else _split_names(self.classes)


def _split_names(classes: str) -> list[str]:
    return [name.strip() for name in classes.split(",")]


class Detector(ResponseModel):
    """A registered detector."""

    id: str
    name: str
    status: DetectorStatus
    """`importing`: a worker has not read the uploaded file yet. `refused`: the file is unusable, see `error`."""
    error: ErrorInfo | None
    """Why the uploaded file was refused, or why its import has to wait."""
    description: AsStored[ConfigDetector | DescribedDetector]
    weights_file: str | None
    """Path in the folder of models; null for the student of a job and for an upload."""
    job_id: str | None
    """The job that trained the detector; null for other weights, and after the job has been deleted."""
    mAP: float | None = None
    """mAP on the validation images of that job, 0 to 1; null without one."""
    sha256: str
    """SHA-256 of the weights, lower-case hex."""
    classes: list[str] | None
    """Class names in the order of the labels; null if unknown."""
    created_at: ResponseTime
