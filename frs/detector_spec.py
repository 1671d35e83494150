"""A detector in a job spec: a registered one, the student of a job, an mmdet config, or a description."""

import re
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, StringConstraints, Tag, WithJsonSchema

from frs.backbones import Backbone
from frs.names import Name
from frs.spec_model import Spec

Architecture = Literal["retinanet", "gfl", "fcos", "atss", "tood", "vfnet", "rtmdet", "yolox", "faster_rcnn"]


def _require_relative_path(path: str) -> str:
    parts = PurePosixPath(path).parts
    if not parts or path.startswith(("/", "~")) or ".." in parts or "\\" in path or "\0" in path or "://" in path:
        raise ValueError("must be a relative path inside the configured folder, without '..' and not a URL")
    return path


RelativePath = Annotated[str, StringConstraints(min_length=1, max_length=255), AfterValidator(_require_relative_path)]


class InitFromDetector(Spec):
    """Initial weights from a registered detector."""

    detector: Name
    """Id or name of the registered detector."""


class InitFromFile(Spec):
    """Initial weights from a file."""

    weights: RelativePath
    """Path of the weights file, relative to the models folder."""


class InitFromBackbone(Spec):
    """Initial weights of the backbone from a file; the rest is random."""

    backbone: RelativePath
    """Path of the weights file, relative to the models folder: of a backbone, a classifier or a detector."""


_JOB_ID = r"^job_[0-9a-z]{26}$"


def _require_job_id(id: str) -> str:
    if not re.fullmatch(_JOB_ID, id):
        raise ValueError(f"must be the id of a job, such as job_{'0' * 26}: choose one of the list of jobs")
    return id


JobId = Annotated[str, AfterValidator(_require_job_id), WithJsonSchema({"type": "string", "pattern": _JOB_ID})]


class InitFromJob(Spec):
    """Initial weights from the student that another job trained. A queued job waits for that job."""

    job: JobId
    """Id of the job."""


Init = Literal["random", "imagenet"] | InitFromDetector | InitFromFile | InitFromBackbone | InitFromJob


class DetectorByName(Spec):
    """A registered detector with its own weights."""

    detector: Name
    """Id or name of the registered detector."""


class DetectorOfJob(Spec):
    """The student that another job trained. A queued job waits for that job."""

    job: JobId
    """Id of the job."""


class ConfigDetector(Spec):
    """A detector from an mmdet config. One that cannot be trained or distilled is refused as `unsupported_detector`."""

    config: Annotated[str, StringConstraints(pattern=r"^mmdet::[a-z0-9_]+/[A-Za-z0-9_.-]+\.py$", max_length=200)]
    """Name of a config that ships with mmdet, for example `mmdet::gfl/gfl_r50_fpn_1x_coco.py`."""
    init: Init = "imagenet"
    """Initial weights: `random`, `imagenet` (backbone only), `{backbone: FILE}` (backbone only), `{detector: NAME}`,
    `{job: ID}` or `{weights: FILE}`."""


class DescribedDetector(Spec):
    """A detector by description. Absent fields take the values of the architecture's base config."""

    architecture: Architecture
    """Detector architecture."""
    backbone: Backbone | None = None
    """Backbone. Absent: the base config's, such as a ResNet-50."""
    neck_channels: Annotated[int, Field(ge=16, le=512, multiple_of=16)] | None = None
    """Channels of every pyramid level. Absent: the base config's number, 96 for `rtmdet` and `yolox`, otherwise 256."""
    stacked_convs: Annotated[int, Field(ge=1, le=8)] | None = None
    """Convolutions in each branch of the head. Absent: the base config's number."""
    init: Init = "random"
    """Initial weights: `random`, `imagenet` (backbone only), `{backbone: FILE}` (backbone only), `{detector: NAME}`,
    `{job: ID}` or `{weights: FILE}`."""


DetectorDescription = ConfigDetector | DescribedDetector
_DETECTOR_KEYS = {"detector": "detector", "job": "job", "config": "config", "architecture": "architecture"}


def _detector_tag(value: Any) -> str | None:
    keys = value.keys() if isinstance(value, dict) else type(value).model_fields if isinstance(value, Spec) else ()
    return next((tag for key, tag in _DETECTOR_KEYS.items() if key in keys), None)


DetectorRef = Annotated[
    Annotated[DetectorByName, Tag("detector")]
    | Annotated[DetectorOfJob, Tag("job")]
    | Annotated[ConfigDetector, Tag("config")]
    | Annotated[DescribedDetector, Tag("architecture")],
    Discriminator(
        _detector_tag,
        custom_error_type="detector_unclear",
        custom_error_message="A detector needs one of the keys `detector`, `job`, `config` or `architecture`.",
    ),
]
