"""What a checkpoint depends on: a run resumes only from a checkpoint of the same identity."""

import hashlib
from collections.abc import Iterator
from typing import Any

from frs.dataset.splits import LoadedSplits
from frs.distillation_spec import FORMER_DEFAULTS
from frs.files import digest
from frs.preflight.context import RunContext
from frs.spec import JobSpec

IDENTITY = ("kind", "method", "unlabelled", "teacher", "student", "schedule", "distillation")
"""Fields of a spec that a checkpoint depends on."""
NEWER_FIELDS = {
    "schedule": {"keep_background_images", "accumulate", "ema", "patience", "frozen_stages", "augmentation"},
    "distillation": {
        "feature_ratio",
        "logit_ratio",
        "weight_schedule",
        "recalibrate",
        "mask",
        "distance",
        "init_from_teacher",
    },
    "evaluation": {"max_detections"},
}
"""Fields that a checkpoint depends on only if they are set: they are newer than checkpoints of running jobs."""


def checkpoint_identity(context: RunContext, data: LoadedSplits) -> str:
    """Return a hash of the spec fields, annotation files, excluded images and weights that a checkpoint depends on.

    A field that is newer than checkpoints of running jobs counts only if it is set.
    """
    job = context.job
    added = [f"{name}={value}" for name, value in _newer_values(job)]
    fields = job.model_dump_json(include=set(IDENTITY), exclude=NEWER_FIELDS)
    splits = [split for split in (data.train, data.unlabelled) if split]
    loaded = [d for d in (context.spec.teacher, context.spec.student) if d and d.weights]
    digests = [d.sha256 or digest(d.weights) for d in loaded if d.weights]
    images = [f"{split.sha256} without {sorted(split.excluded)}" for split in splits]
    return hashlib.sha256("\n".join([fields, *images, *digests, *added]).encode()).hexdigest()


def _newer_values(job: JobSpec) -> Iterator[tuple[str, Any]]:
    """Yield name and value of each newer field that has another value than its first default."""
    for part, names in NEWER_FIELDS.items():
        settings = getattr(job, part)
        for name, field in type(settings).model_fields.items():
            value = getattr(settings, name)
            if name in names and value != FORMER_DEFAULTS.get(name, field.default):
                yield name, value
