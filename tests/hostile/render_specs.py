"""Reads job specs, one JSON object a line; renders what validates as the engine does; says what was seen of it as JSON.

A canary secret is in the environment, and an audit hook listens.
"""

import frs.detectors._mmdet_init  # noqa: F401, I001

import json
import os
import sys
import tempfile
from pathlib import Path

from everywhere import JOB
from frs.detectors import builder
from frs.training import schedule
from frs.errors import FrsError
from frs.training.batches import test_pipeline, training_pipeline
from frs.spec import DescribedDetector, JobSpec, ConfigDetector
from pydantic import ValidationError
from audit_hook import AuditHook

CANARY = os.environ["FRS_CANARY_SECRET"]
WORK = Path(sys.argv[1])


def render(spec: JobSpec) -> str:
    parts = spec.model_dump_json(include={"student", "teacher", "schedule"})
    if parts not in rendered:  # a config takes half a second, and nothing else of a spec gets into it
        rendered[parts] = _render(spec)
    return spec.model_dump_json() + rendered[parts]


def _render(spec: JobSpec) -> str:
    said = []
    for detector in (spec.student, spec.teacher):
        if isinstance(detector, ConfigDetector | DescribedDetector):
            stock = builder.load_base_config(detector)
            plan = schedule.resolve_schedule(spec.schedule, stock, 100)
            said.append(builder.model_config(detector, 4).__repr__())
            said.append(repr(training_pipeline(spec.schedule, stock)) + repr(test_pipeline(spec.schedule, stock)))
            said.append(repr(schedule.optimizer_config(spec.schedule, plan)))
            said.append(repr(schedule.scheduler_configs(spec.schedule, plan)))
    return "\n".join(said)


rendered: dict[str, str] = {}
render(JobSpec.model_validate(JOB))
audit_hook = AuditHook()
valid, refused, hits = 0, 0, []
for line in sys.stdin:
    with audit_hook.watching([WORK, Path(tempfile.gettempdir())]) as seen:
        try:
            text = render(JobSpec.model_validate(json.loads(line)))
            valid += 1
        except (ValidationError, FrsError):
            text, refused = "", refused + 1
    if seen or CANARY in text or any(WORK.iterdir()):
        hits.append({"spec": line, "seen": list(seen), "secret": CANARY in text})
print(json.dumps({"valid": valid, "refused": refused, "hits": hits}))
