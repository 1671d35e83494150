"""Standard names: `worker_requests`, new columns of jobs, workers and data sets, spec fields.

Old tables and columns stay, with defaults where a new version no longer fills them, so a worker of the version before
goes on with what it holds. It skips jobs whose spec it cannot read.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

Json = dict[str, Any]
Names = Mapping[str, str]

SPEC = {"max_bad_share": "max_invalid_fraction"}
SCHEDULE = {"clip_norm": "max_grad_norm", "policy": "lr_schedule", "flip": "flip_prob", "scales": "train_sizes"}
DETECTOR = {"head_convs": "stacked_convs"}
REPORT = {
    "problems": "issues",
    "problem_counts": "issue_counts",
    "bad_images": "invalid_images",
    "bad_share": "invalid_fraction",
    "bad_image_ids": "invalid_image_ids",
    "trainable_images": "labelled_images",
}
COMPARISON = {"over_images": "image_interval", "over_seeds": "seed_interval", "unequal": "step_mismatch"}
REQUEST_COLUMNS = (
    *("id", "kind", "owner", "request", "devices", "status", "attempt"),
    *("lease_owner", "lease_expires_at", "result", "error", "created_at", "finished_at"),
)


def upgrade() -> None:
    op.add_column("jobs", sa.Column("failures_reset_at_attempt", sa.Integer(), server_default="0", nullable=False))
    op.execute("UPDATE jobs SET failures_reset_at_attempt = forgiven")
    op.add_column("workers", sa.Column("concurrency", sa.Integer(), server_default="1", nullable=False))
    op.add_column("workers", sa.Column("missing", sa.JSON(), nullable=True))
    op.execute("UPDATE workers SET concurrency = slots, missing = lacks")
    with op.batch_alter_table("workers") as batch:
        batch.alter_column("slots", server_default="1")
    op.add_column("datasets", sa.Column("check_result", sa.JSON(), nullable=True))
    _create_worker_requests()
    columns = ", ".join(REQUEST_COLUMNS)
    op.execute(f"INSERT INTO worker_requests ({columns}) SELECT {columns} FROM errands")
    _rewrite("jobs", "spec", _spec_with(SPEC, SCHEDULE, DETECTOR))
    _rewrite("worker_requests", "request", _request_with(SPEC, SCHEDULE, DETECTOR))
    _rewrite("detectors", "description", lambda description: _renamed(description, DETECTOR))
    _rewrite("datasets", "report", _check_result, into="check_result")
    _rewrite("jobs", "facts", lambda facts: _with_comparison(facts, COMPARISON))


def downgrade() -> None:
    _rewrite("jobs", "facts", lambda facts: _with_comparison(facts, _inverse(COMPARISON)))
    _rewrite("detectors", "description", lambda description: _renamed(description, _inverse(DETECTOR)))
    _rewrite("jobs", "spec", _spec_with(_inverse(SPEC), _inverse(SCHEDULE), _inverse(DETECTOR)))
    op.drop_table("worker_requests")
    op.drop_column("datasets", "check_result")
    with op.batch_alter_table("workers") as batch:
        batch.alter_column("slots", server_default=None)
    op.drop_column("workers", "missing")
    op.drop_column("workers", "concurrency")
    op.drop_column("jobs", "failures_reset_at_attempt")


def _create_worker_requests() -> None:
    op.create_table(
        "worker_requests",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("request", sa.JSON(), nullable=False),
        sa.Column("devices", sa.Integer(), nullable=True),
        sa.Column("status", sa.String(32), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("lease_owner", sa.String(), nullable=True),
        sa.Column("lease_expires_at", sa.Double(), nullable=True),
        sa.Column("result", sa.JSON(), nullable=True),
        sa.Column("error", sa.JSON(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("finished_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_worker_requests")),
    )
    op.create_index(op.f("ix_worker_requests_status_created_at"), "worker_requests", ["status", "created_at"])


def _rewrite(table: str, column: str, change: Callable[[Json], Json], *, into: str | None = None) -> None:
    """Apply `change` to the JSON objects of a column; write only rows that differ, to the column `into`."""
    rows = sa.table(table, sa.column("id"), sa.column(column, sa.JSON), sa.column(into or column, sa.JSON))
    for id, value in _values(rows.c.id, rows.c[column]):
        changed = change(value)
        if changed != value or into is not None:
            op.get_bind().execute(sa.update(rows).where(rows.c.id == id).values({into or column: changed}))


def _values(id: Any, column: Any) -> Iterator[tuple[str, Json]]:
    """Yield the id and the JSON object of each row that has one, 500 rows a query."""
    last = ""
    while True:
        page = op.get_bind().execute(sa.select(id, column).where(id > last).order_by(id).limit(500)).all()
        if not page:
            return
        yield from ((row_id, value) for row_id, value in page if isinstance(value, dict))
        last = page[-1][0]


def _spec_with(top: Names, schedule: Names, detector: Names) -> Callable[[Json], Json]:
    parts = {"schedule": schedule, "student": detector, "teacher": detector}

    def change(spec: Json) -> Json:
        return {name: _renamed(value, parts.get(name, {})) for name, value in _renamed(spec, top).items()}

    return change


def _request_with(top: Names, schedule: Names, detector: Names) -> Callable[[Json], Json]:
    change = _spec_with(top, schedule, detector)
    return lambda request: request | {"spec": change(request["spec"])} if "spec" in request else request


def _check_result(report: Json) -> Json:
    return {name: _renamed(part, REPORT) for name, part in report.items()}


def _with_comparison(facts: Json, names: Names) -> Json:
    """Rename the fields of a comparison job's result, which reports read from its facts."""
    return facts | {"comparison": _renamed(facts["comparison"], names)} if "comparison" in facts else facts


def _renamed(value: Any, names: Names) -> Any:
    return {names.get(key, key): part for key, part in value.items()} if isinstance(value, dict) else value


def _inverse(names: Names) -> Names:
    return {new: old for old, new in names.items()}
