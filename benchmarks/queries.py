"""Latency of GET /jobs and GET /jobs/{id}/metrics on full tables, in milliseconds over HTTP.

    python benchmarks/queries.py --database postgresql --json

100,000 jobs, first all queued, then all ended; 100 jobs with 20 curves of 5,000 points each, and one job with 20
curves of 50,000 points. The first read of a curve is slow; later reads use the downsampled cache. Both are measured.
"""

import argparse
import json
import time
from collections.abc import Iterable
from typing import Any

import httpx2
import numpy as np
from servers import ApiProcess
from service_process import POSTGRESQL, SQLITE, start_service
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
 (id, name, kind, spec, owner, tags, dataset_id, priority, created_at, status, attempt, facts, last_event,
 failures_reset_at_attempt)
 SELECT {ID.format("n")}, 'job ' || n, 'train', :spec, CASE WHEN n % 10 = 0 THEN '{OWNER}' ELSE 'admin' END, '[]',
 'ds_shapes', n % 3, 1000000000.0 + n, 'queued', 0, '{{}}', 100000, 0 FROM n"""
FILL_CURVES = f"""{COUNT} INSERT INTO metrics (job_id, key, step, epoch, value, at, attempt, seq)
 SELECT {ID.format(":job")}, :key, n, 1 + n / 100, ((n * 7919) % 10007) / 10007.0, 1000000000.0 + n, 1, n FROM n"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database", choices=(SQLITE, POSTGRESQL), default=SQLITE)
    parser.add_argument("--scale", type=float, default=1.0, help="scale of the table sizes")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    result = measure(options.database, options.scale)
    print(json.dumps(result) if options.json else "\n".join(f"{name} {value}" for name, value in result.items()))


def measure(kind: str = SQLITE, scale: float = 1.0, repeats: int = REPEATS) -> dict[str, Any]:
    """Return p50, p95 and CPU time of the API in milliseconds for each kind of request, and the number of rows."""
    jobs, curves = int(JOBS * scale), max(1, int(CURVES * scale))
    with start_service(kind) as service:
        started = time.monotonic()
        fill(service.database, jobs, curves, max(1, int(LONG * scale)))
        result: dict[str, Any] = {"fill_seconds": time.monotonic() - started, "jobs": jobs}
        result["metrics"] = _count(service.database, "metrics")
        with service.api as api:
            result |= _measure_curves(api, curves, repeats)
            result |= _measure_lists(api, "queued", repeats)
            end_jobs = "UPDATE jobs SET status = 'succeeded', end_reason = 'completed', finished_at = created_at + 9"
            _execute(service.database, end_jobs, *_vacuum(kind))
            result |= _measure_lists(api, "ended", repeats)
    return result


def fill(database: Database, jobs: int, curves: int, long: int) -> None:
    """Insert `jobs` queued jobs: the first `curves` with 20 curves of 5,000 points, the next with 20 of `long`."""
    kind = database.engine.dialect.name
    paths = dict.fromkeys(("train_images", "train_annotations", "val_images", "val_annotations"), "x")
    with database.write() as session:
        session.add(Dataset(id="ds_shapes", name="shapes", **paths))
        api_keys.add(session, OWNER, TOKEN, owner=OWNER, scopes=[api_keys.Scope.READ])
        session.flush()
        session.execute(text(FILL_JOBS), {"count": jobs, "spec": SPEC.model_dump_json()})
        session.commit()
    if kind == POSTGRESQL:
        _execute(database, "ALTER TABLE metrics DROP CONSTRAINT fk_metrics_job_id")
    _execute(database, "DROP INDEX ix_metrics_job_id_seq")
    for job in range(1, curves + 2):
        with database.write() as session:
            steps = STEPS if job <= curves else long
            for number in range(KEYS):
                row = {"job": job, "key": f"train/metric_{number:02d}", "count": steps}
                session.execute(text(FILL_CURVES), row)
            session.commit()
    _execute(database, "CREATE INDEX ix_metrics_job_id_seq ON metrics (job_id, seq)", *_vacuum(kind))


def _measure_curves(api: ApiProcess, curves: int, repeats: int) -> dict[str, Any]:
    client = _client(api, api.key)
    numbers = np.random.default_rng(0).integers(1, curves + 1, repeats)
    result = {"curves, first": _latencies(api, client, (_curves_path(job) for job in range(1, curves + 1)))}
    result["curves, again"] = _latencies(api, client, (_curves_path(int(job)) for job in numbers))
    result["long curves, first"] = _latencies(api, client, [_curves_path(curves + 1)])
    result["long curves, again"] = _latencies(api, client, [_curves_path(curves + 1)] * repeats)
    return result


def _measure_lists(api: ApiProcess, status: str, repeats: int) -> dict[str, Any]:
    admin, owner = _client(api, api.key), _client(api, TOKEN)
    return {
        f"jobs {status}, page 1": _latencies(api, admin, ["/jobs"] * repeats),
        f"jobs {status}, page 200": _latencies(api, admin, [_path_of_page_200(admin)] * repeats),
        f"jobs {status}, one owner's": _latencies(api, owner, ["/jobs"] * repeats),
        f"jobs {status}, none such": _latencies(api, admin, ["/jobs?status=failed"] * repeats),
    }


def _path_of_page_200(client: httpx2.Client) -> str:
    """Return the path of the page after 199 pages of 50 jobs, or of the last page."""
    cursor = ""
    for _ in range(50):
        next_cursor = client.get(f"/jobs?limit=199{cursor}").json()["next_cursor"]
        if next_cursor is None:
            break
        cursor = f"&cursor={next_cursor}"
    return f"/jobs?limit=50{cursor}"


def _latencies(api: ApiProcess, client: httpx2.Client, paths: Iterable[str]) -> dict[str, float]:
    latencies, cpu_before = [], api.cpu_seconds()
    for path in paths:
        started = time.perf_counter()
        client.get(path).raise_for_status()
        latencies.append(1000 * (time.perf_counter() - started))
    return {
        "p50": float(np.percentile(latencies, 50)),
        "p95": float(np.percentile(latencies, 95)),
        "cpu": 1000 * (api.cpu_seconds() - cpu_before) / len(latencies),
    }


def _client(api: ApiProcess, token: str) -> httpx2.Client:
    return httpx2.Client(base_url=api.url, headers={"Authorization": f"Bearer {token}"}, timeout=120)


def _curves_path(job: int) -> str:
    return f"/jobs/job_000000000000000000{job:08d}/metrics"


def _count(database: Database, table: str) -> int:
    with database.read() as session:
        return int(session.execute(text(f"SELECT count(*) FROM {table}")).scalar_one())


def _vacuum(kind: str) -> list[str]:
    """Return the statements that autovacuum would run about a minute later."""
    return ["VACUUM ANALYZE"] if kind == POSTGRESQL else []


def _execute(database: Database, *statements: str) -> None:
    for statement in statements:
        level = {"isolation_level": "AUTOCOMMIT"} if statement.startswith("VACUUM") else {}
        with database.engine.connect().execution_options(**level) as connection:
            connection.execute(text(statement))
            connection.commit()


if __name__ == "__main__":
    main()
