"""Metric rows per second from a stub trainer, through the supervisor, to SQLite.

    python benchmarks/recording.py --json

The trainer sends the second half twice, as after a rewind: the table must not have duplicate rows.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from service import SPEC
from sqlalchemy import func, select

from frs.dataset.shapes.drawing import draw_dataset
from frs.spec import JobSpec
from store.db.database import open_database
from store.db.tables import Dataset, Job, Metric
from store.initialise import initialise
from store.jobs import lifecycle
from store.settings import Settings
from store.states import DatasetStatus
from worker.attempt.supervisor import Supervisor

STEPS, KEYS = 20_000, 10
TRAINER = """
import os, sys
steps, keys, out = {steps}, {keys}, os.fdopen(int(sys.argv[-1]), "w")
values = ", ".join(f'"train/key_{{n}}": 0.123456' for n in range(keys))
for step in [*range(steps), *range(steps // 2, steps)]:
    out.write('{{"type": "metrics", "step": %d, "epoch": 0, "values": {{%s}}}}\\n' % (step, values))
out.write('{{"type": "outcome", "status": "succeeded", "end_reason": "completed"}}\\n')
out.close()
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    result = measure(options.steps)
    print(json.dumps(result) if options.json else "  ".join(f"{name} {value}" for name, value in result.items()))


def measure(steps: int = STEPS) -> dict[str, Any]:
    """Return `sent`, the number of values; `rate`, values per second from claim to end; `surplus`, duplicate rows."""
    with tempfile.TemporaryDirectory(prefix="frs-load-") as folder:
        settings = Settings(data=Path(folder) / "data")
        initialise(settings)
        database = open_database(settings.database_url)
        with database.write() as session:
            session.add(Dataset(id="ds_shapes", name="shapes", status=DatasetStatus.READY, **_draw_images(settings)))
            job_id = lifecycle.add(session, JobSpec.model_validate(SPEC), dataset_id="ds_shapes").id
            lease = lifecycle.claim(session, "benchmark", settings.lease_seconds)
            session.commit()
        assert lease is not None
        command = (sys.executable, "-c", TRAINER.format(steps=steps, keys=KEYS))
        started = time.perf_counter()
        Supervisor(database, settings, lease, command).run()
        seconds = time.perf_counter() - started
        with database.read() as session:
            rows = session.scalars(select(func.count()).select_from(Metric)).one()
            status = session.get_one(Job, job_id).status
        database.engine.dispose()
    sent = (steps + steps - steps // 2) * KEYS
    return {"rate": sent / seconds, "sent": sent, "surplus": rows - steps * KEYS, "status": str(status)}


def _draw_images(settings: Settings) -> dict[str, Any]:
    draw_dataset(settings.datasets_root / "shapes", train=2, val=2, size=64)
    images = {f"{split}_images": f"shapes/{split}" for split in ("train", "val")}
    return images | {f"{split}_annotations": f"shapes/annotations/instances_{split}.json" for split in ("train", "val")}


if __name__ == "__main__":
    main()
