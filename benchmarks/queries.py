"""Lists and curves over full tables: milliseconds of GET /jobs and GET /jobs/{id}/metrics over HTTP.

    python benchmarks/queries.py --database postgresql --json

100,000 jobs, first all in the queue, then all ended; 100 jobs of 20 curves of 5,000 points each, and one of 20 curves of
50,000. A curve is long to read the first time, and kept thinned out from then on: both are told.
"""

import argparse
import json
import time
from collections.abc import Iterable
from typing import Any

import httpx2
import numpy as np
from service_process import POSTGRESQL, SQLITE, ServiceProcess, cpu, serving
from sqlalchemy import text

from frs.spec import JobSpec
from store.db import api_keys
from store.db.database import Database
from store.db.tables import Dataset

JOBS, KEYS, STEPS, CURVES, LONG = 100_000, 20, 5_000, 100, 50_000
REPEATS = 60
OWNER, TOKEN = "ann", "frs_of_ann_for_the_benchmark_alone_0000000000"
SPEC = JobSpec.model_validate({"kind": "train", "dataset": "shapes", "student": {"architecture": "gfl"}})
COUNT = "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < :count)"
ID = "'job_000000000000000000' || substr(CAST(100000000 + {} AS TEXT), 2)"
FILL_JOBS = f"""{COUNT} INSERT INTO jobs
 (id, name, kind, spec, owner, tags, dataset_id, priority, created_at, status, attempt, facts, last_event, failures_reset_at_attempt)
 SELECT {ID.format("n")}, 'job ' || n, 'train', :spec, CASE WHEN n % 10 = 0 THEN '{OWNER}' ELSE 'admin' END, '[]',
 'ds_shapes', n % 3, 1000000000.0 + n, 'queued', 0, '{{}}', 100000, 0 FROM n"""
FILL_CURVES = f"""{COUNT} INSERT INTO metrics (job_id, key, step, epoch, value, at, attempt, seq)
 SELECT {ID.format(":job")}, :key, n, 1 + n / 100, ((n * 7919) % 10007) / 10007.0, 1000000000.0 + n, 1, n FROM n"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database", choices=(SQLITE, POSTGRESQL), default=SQLITE)
    parser.add_argument("--scale", type=float, default=1.0, help="Of the tables.")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    measured = measure(asked.database, asked.scale)
    print(json.dumps(measured) if asked.json else "\n".join(f"{name} {value}" for name, value in measured.items()))


def measure(kind: str = SQLITE, scale: float = 1.0, repeats: int = REPEATS) -> dict[str, Any]:
    """p50, p95 and the API's own processor time in milliseconds for each kind of request, and how many rows there were."""
    jobs, curves = int(JOBS * scale), max(1, int(CURVES * scale))
    with serving(kind) as service_process:
        began = time.monotonic()
        _fill(service_process.database, jobs, curves, max(1, int(LONG * scale)))
        found: dict[str, Any] = {"fill_seconds": time.monotonic() - began, "jobs": jobs}
        found["metrics"] = _count(service_process.database, "metrics")
        with service_process.api() as pid:
            found |= _of_curves(service_process, pid, curves, repeats)
            found |= _of_lists(service_process, pid, "queued", repeats)
            ended = "UPDATE jobs SET status = 'succeeded', end_reason = 'completed', finished_at = created_at + 9"
            _do(service_process.database, ended, *_tidy(kind))
            found |= _of_lists(service_process, pid, "ended", repeats)
    return found


def _fill(database: Database, jobs: int, curves: int, long: int) -> None:
    kind = database.engine.dialect.name
    paths = dict.fromkeys(("train_images", "train_annotations", "val_images", "val_annotations"), "x")
    with database.write() as session:
        session.add(Dataset(id="ds_shapes", name="shapes", **paths))
        api_keys.add(session, OWNER, TOKEN, owner=OWNER, scopes=[api_keys.Scope.READ])
        session.flush()
        session.execute(text(FILL_JOBS), {"count": jobs, "spec": SPEC.model_dump_json()})
        session.commit()
    if kind == POSTGRESQL:
        _do(database, "ALTER TABLE metrics DROP CONSTRAINT fk_metrics_job_id")
    _do(database, "DROP INDEX ix_metrics_job_id_seq")
    for job in range(1, curves + 2):
        with database.write() as session:
            steps = STEPS if job <= curves else long
            for number in range(KEYS):
                row = {"job": job, "key": f"train/metric_{number:02d}", "count": steps}
                session.execute(text(FILL_CURVES), row)
            session.commit()
    _do(database, "CREATE INDEX ix_metrics_job_id_seq ON metrics (job_id, seq)", *_tidy(kind))


def _of_curves(service_process: ServiceProcess, pid: int, curves: int, repeats: int) -> dict[str, Any]:
    client = _client(service_process, service_process.key)
    numbers = np.random.default_rng(0).integers(1, curves + 1, repeats)
    found = {"curves, first": _times(pid, client, (_curves(job) for job in range(1, curves + 1)))}
    found["curves, again"] = _times(pid, client, (_curves(int(job)) for job in numbers))
    found["long curves, first"] = _times(pid, client, [_curves(curves + 1)])
    found["long curves, again"] = _times(pid, client, [_curves(curves + 1)] * repeats)
    return found


def _of_lists(service_process: ServiceProcess, pid: int, status: str, repeats: int) -> dict[str, Any]:
    everybodys, own = _client(service_process, service_process.key), _client(service_process, TOKEN)
    cursor = everybodys.get("/jobs", params={"limit": 50}).json()["next_cursor"]
    return {
        f"jobs {status}, newest": _times(pid, everybodys, ["/jobs"] * repeats),
        f"jobs {status}, 200 on": _times(pid, everybodys, [f"/jobs?limit=200&cursor={cursor}"] * repeats),
        f"jobs {status}, one owner's": _times(pid, own, ["/jobs"] * repeats),
        f"jobs {status}, none such": _times(pid, everybodys, ["/jobs?status=failed"] * repeats),
    }


def _times(pid: int, client: httpx2.Client, paths: Iterable[str]) -> dict[str, float]:
    taken, busy = [], cpu(pid)
    for path in paths:
        began = time.perf_counter()
        client.get(path).raise_for_status()
        taken.append(1000 * (time.perf_counter() - began))
    return {
        "p50": float(np.percentile(taken, 50)),
        "p95": float(np.percentile(taken, 95)),
        "cpu": 1000 * (cpu(pid) - busy) / len(taken),
    }


def _client(service_process: ServiceProcess, token: str) -> httpx2.Client:
    return httpx2.Client(base_url=service_process.url, headers={"Authorization": f"Bearer {token}"}, timeout=120)


def _curves(job: int) -> str:
    return f"/jobs/job_000000000000000000{job:08d}/metrics"


def _count(database: Database, table: str) -> int:
    with database.read() as session:
        return int(session.execute(text(f"SELECT count(*) FROM {table}")).scalar_one())


def _tidy(kind: str) -> list[str]:
    """What PostgreSQL would do by itself a minute later."""
    return ["VACUUM ANALYZE"] if kind == POSTGRESQL else []


def _do(database: Database, *statements: str) -> None:
    for statement in statements:
        level = {"isolation_level": "AUTOCOMMIT"} if statement.startswith("VACUUM") else {}
        with database.engine.connect().execution_options(**level) as connection:
            connection.execute(text(statement))
            connection.commit()


if __name__ == "__main__":
    main()
