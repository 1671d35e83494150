"""Tables `audit` and `owners`; the worker's name, the time a job was queued, sizes of uploads, a disk quota per key.

New tables and columns that may be null: a worker of the version before writes its rows as it did.
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


def downgrade() -> None:
    op.create_index(op.f("ix_jobs_status_priority_created_at"), "jobs", ["status", "priority", "created_at"])
    op.drop_index(op.f("ix_jobs_status_priority_owner_created_at_id"), "jobs")
    op.drop_table("audit")
    op.drop_table("owners")
    for table, column, _ in reversed(COLUMNS):
        op.drop_column(table, column)
