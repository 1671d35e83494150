"""Owners, scopes and quotas; what actions ask of a running job; workers and errands.

Jobs only gain columns, all with defaults, so a worker of the version before goes on with what it holds.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

OF_JOBS = ("owner", "tags", "devices", "pause_requested_at", "stop_requested_at", "forgiven")
OF_KEYS = ("owner", "scopes", "max_active_jobs", "requests_per_minute", "expires_at")
OF_DATASETS: tuple[str, ...] = ("owner", "upload_key")
OF_DETECTORS: tuple[str, ...] = ("owner", "status", "error")


def upgrade() -> None:
    for table in ("jobs", "api_keys", "datasets", "detectors"):
        op.add_column(table, sa.Column("owner", sa.String(), server_default="admin", nullable=False))
    _jobs()
    op.add_column("api_keys", sa.Column("scopes", sa.JSON(), server_default='["admin"]', nullable=False))
    op.add_column("api_keys", sa.Column("max_active_jobs", sa.Integer(), nullable=True))
    op.add_column("api_keys", sa.Column("requests_per_minute", sa.Integer(), nullable=True))
    op.add_column("api_keys", sa.Column("expires_at", sa.Double(), nullable=True))
    op.add_column("datasets", sa.Column("upload_key", sa.String(), nullable=True))
    op.add_column("detectors", sa.Column("status", sa.String(32), server_default="ready", nullable=False))
    op.add_column("detectors", sa.Column("error", sa.JSON(), nullable=True))
    for table in ("datasets", "detectors"):
        with op.batch_alter_table(table) as batch:
            batch.drop_constraint(f"uq_{table}_name", type_="unique")
            batch.create_unique_constraint(f"uq_{table}_owner_name", ["owner", "name"])
    _new_tables()


def downgrade() -> None:
    op.drop_table("errands")
    op.drop_table("workers")
    for table, columns in {"datasets": OF_DATASETS, "detectors": OF_DETECTORS}.items():
        with op.batch_alter_table(table) as batch:
            batch.drop_constraint(f"uq_{table}_owner_name", type_="unique")
            batch.create_unique_constraint(f"uq_{table}_name", ["name"])
            for column in columns:
                batch.drop_column(column)
    op.drop_index("uq_jobs_owner_idempotency_key", "jobs")
    op.drop_index("ix_jobs_owner_created_at_id", "jobs")
    for column in OF_JOBS:
        op.drop_column("jobs", column)
    for column in OF_KEYS:
        op.drop_column("api_keys", column)


def _jobs() -> None:
    op.add_column("jobs", sa.Column("tags", sa.JSON(), server_default="[]", nullable=False))
    op.add_column("jobs", sa.Column("devices", sa.Integer(), nullable=True))
    op.add_column("jobs", sa.Column("pause_requested_at", sa.Double(), nullable=True))
    op.add_column("jobs", sa.Column("stop_requested_at", sa.Double(), nullable=True))
    op.add_column("jobs", sa.Column("forgiven", sa.Integer(), server_default="0", nullable=False))
    jobs = sa.table("jobs", sa.column("id"), *(sa.column(name, sa.JSON) for name in ("spec", "tags")))
    idempotency = sa.table("jobs", sa.column("id"), sa.column("idempotency_key"))
    newer = idempotency.alias()
    repeated = sa.exists().where(
        newer.c.idempotency_key == idempotency.c.idempotency_key, newer.c.id > idempotency.c.id
    )
    op.execute(sa.update(idempotency).where(repeated).values(idempotency_key=None))  # two keys may have used the same
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    tags = sa.func.json_extract(jobs.c.spec, "$.tags") if is_sqlite else jobs.c.spec["tags"]
    op.execute(sa.update(jobs).values(tags=sa.func.coalesce(tags, sa.text("'[]'"))))
    op.execute(sa.text(_DEVICES["sqlite" if is_sqlite else "postgresql"]))
    op.create_index("uq_jobs_owner_idempotency_key", "jobs", ["owner", "idempotency_key"], unique=True)
    op.create_index("ix_jobs_owner_created_at_id", "jobs", ["owner", "created_at", "id"])


_DEVICES = {
    "sqlite": "UPDATE jobs SET devices = json_extract(spec, '$.resources.devices')",
    "postgresql": "UPDATE jobs SET devices = CAST(spec #>> '{resources,devices}' AS INTEGER)",
}


def _new_tables() -> None:
    op.create_table(
        "workers",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("host", sa.String(), nullable=False),
        sa.Column("version", sa.String(), nullable=False),
        sa.Column("slots", sa.Integer(), nullable=False),
        sa.Column("gpus", sa.JSON(), nullable=False),
        sa.Column("draining", sa.Boolean(), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=False),
        sa.Column("seen_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workers")),
    )
    op.create_table(
        "errands",
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
        sa.PrimaryKeyConstraint("id", name=op.f("pk_errands")),
    )
    op.create_index(op.f("ix_errands_status_created_at"), "errands", ["status", "created_at"])
