"""Tables `audit` and `owners`; the worker's name, the time a job was queued, sizes of uploads, a disk quota per key.

New tables, indexes and columns that may be null: a worker of the version before writes its rows as it did. One index of
jobs is replaced by another.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

COLUMNS = (
    ("jobs", "queued_at", sa.Double),
    ("workers", "name", sa.String),
    ("datasets", "bytes", sa.BigInteger),
    ("detectors", "bytes", sa.BigInteger),
    ("api_keys", "max_disk_bytes", sa.BigInteger),
)
QUEUE_ORDER = ["status", "priority", "owner", "created_at", "id"]
APPEND_ONLY = {
    "sqlite": [
        f"CREATE TRIGGER audit_refuses_{event.lower()} BEFORE {event} ON audit "
        "BEGIN SELECT RAISE(ABORT, 'rows of audit are never changed or deleted'); END"
        for event in ("UPDATE", "DELETE")
    ],
    "postgresql": [
        "CREATE FUNCTION refuse_change_of_audit() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'rows of audit are never changed or deleted'; END $$",
        "CREATE TRIGGER audit_refuses_changes BEFORE UPDATE OR DELETE OR TRUNCATE ON audit "
        "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_audit()",
    ],
}
"""Triggers that refuse to change or delete rows of `audit`, by dialect."""


def upgrade() -> None:
    for table, column, type in COLUMNS:
        op.add_column(table, sa.Column(column, type(), nullable=True))
    op.create_table(
        "owners",
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("served_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("owner", name=op.f("pk_owners")),
    )
    op.create_table(
        "audit",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("target", sa.String(), nullable=True),
        sa.Column("owner", sa.String(), nullable=True),
        sa.Column("key_id", sa.String(), nullable=True),
        sa.Column("address", sa.String(), nullable=True),
        sa.Column("request_id", sa.String(), nullable=True),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit")),
    )
    op.create_index(op.f("ix_audit_at_id"), "audit", ["at", "id"])
    op.create_index(op.f("ix_jobs_status_priority_owner_created_at_id"), "jobs", QUEUE_ORDER)
    op.drop_index(op.f("ix_jobs_status_priority_created_at"), "jobs")
    for statement in APPEND_ONLY[op.get_bind().dialect.name]:
        op.execute(statement)
    _keep_length_of_stored_jobs()


def _keep_length_of_stored_jobs() -> None:
    """Store the 12 epochs that ended the training of jobs with `max_steps` alone; it now decides the length alone.

    Only for described students: the epochs of an mmdet config cannot be read here.
    """
    jobs = sa.table("jobs", sa.column("id", sa.String), sa.column("spec", sa.JSON))
    max_steps = jobs.c.spec["schedule"]["max_steps"].as_string()
    rows = op.get_bind().execute(sa.select(jobs.c.id, jobs.c.spec).where(max_steps.is_not(None))).all()
    for id, spec in rows:
        if spec["schedule"].get("epochs") is None and "architecture" in (spec.get("student") or {}):
            spec["schedule"]["epochs"] = 12
            op.execute(sa.update(jobs).where(jobs.c.id == id).values(spec=spec))


def downgrade() -> None:
    op.create_index(op.f("ix_jobs_status_priority_created_at"), "jobs", ["status", "priority", "created_at"])
    op.drop_index(op.f("ix_jobs_status_priority_owner_created_at_id"), "jobs")
    op.drop_table("audit")
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION refuse_change_of_audit()")
    op.drop_table("owners")
    for table, column, _ in reversed(COLUMNS):
        op.drop_column(table, column)
