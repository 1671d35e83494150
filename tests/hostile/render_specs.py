"""Read job specs, one JSON object per line, resolve the valid ones like the engine, and print the audit result as JSON.

A canary secret is in the environment, and an audit hook records events.
"""

import frs.detectors._mmdet_init  # noqa: F401, I001

import json
import os
import sys
import tempfile
from pathlib import Path

from request_places import JOB
from frs.detectors import builder
from frs.training import schedule
from frs.errors import FrsError
from frs.training.batches import test_pipeline, test_size, training_pipeline
from frs.detector_spec import DescribedDetector, ConfigDetector
from frs.spec import JobSpec
from pydantic import ValidationError
from audit_hook import AuditHook

CANARY = os.environ["FRS_CANARY_SECRET"]
WORK = Path(sys.argv[1])


def render(spec: JobSpec) -> str:
    parts = spec.model_dump_json(include={"student", "teacher", "schedule"})
    if parts not in rendered:  # a config takes 0.5 s to load and depends on nothing else
        rendered[parts] = _render(spec)
    return spec.model_dump_json() + rendered[parts]


def _render(spec: JobSpec) -> str:
    parts = []
    for detector in (spec.student, spec.teacher):
        if isinstance(detector, ConfigDetector | DescribedDetector):
            base_config = builder.load_base_config(detector)
            resolved = schedule.resolve_schedule(spec.schedule, base_config, 100)
            parts.append(builder.model_config(detector, 4).__repr__())
            parts.append(
                repr(training_pipeline(spec.schedule, base_config))
                + repr(test_pipeline(test_size(spec.schedule, base_config)))
            )
            parts.append(repr(schedule.optimizer_config(spec.schedule, resolved)))
            parts.append(repr(schedule.scheduler_configs(resolved)))
    return "\n".join(parts)


rendered: dict[str, str] = {}
render(JobSpec.model_validate(JOB))
audit_hook = AuditHook()
valid, refused, hits = 0, 0, []
for line in sys.stdin:
    with audit_hook.record([WORK, Path(tempfile.gettempdir())]) as events:
        try:
            text = render(JobSpec.model_validate(json.loads(line)))
            valid += 1
        except (ValidationError, FrsError):
            text, refused = "", refused + 1
    if events or CANARY in text or any(WORK.iterdir()):
        hits.append({"spec": line, "events": list(events), "secret": CANARY in text})
print(json.dumps({"valid": valid, "refused": refused, "hits": hits}))
