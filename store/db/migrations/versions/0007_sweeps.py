"""Tables `sweeps` and `sweep_trials`.

New tables only: a worker of the version before writes its rows as it did.
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "sweeps",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=True),
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("key_id", sa.String(), nullable=True),
        sa.Column("spec", sa.JSON(), nullable=False),
        sa.Column("dataset_id", sa.String(), nullable=False),
        sa.Column("teacher_job_id", sa.String(), nullable=True),
        sa.Column("status", sa.String(length=32), nullable=False),
        sa.Column("search_end", sa.String(length=32), nullable=True),
        sa.Column("best_setting", sa.Integer(), nullable=True),
        sa.Column("confirm_job_id", sa.String(), nullable=True),
        sa.Column("result", sa.JSON(), nullable=True),
        sa.Column("error", sa.JSON(), nullable=True),
        sa.Column("failures_before_resume", sa.Integer(), nullable=False),
        sa.Column("idempotency_key", sa.String(), nullable=True),
        sa.Column("idempotency_digest", sa.String(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("finished_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["key_id"], ["api_keys.id"], name=op.f("fk_sweeps_key_id")),
        sa.ForeignKeyConstraint(
            ["confirm_job_id"], ["jobs.id"], name=op.f("fk_sweeps_confirm_job_id"), ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sweeps")),
    )
    op.create_index("uq_sweeps_owner_idempotency_key", "sweeps", ["owner", "idempotency_key"], unique=True)
    op.create_index(op.f("ix_sweeps_owner_created_at_id"), "sweeps", ["owner", "created_at", "id"])
    op.create_index(op.f("ix_sweeps_status"), "sweeps", ["status"])
    op.create_index(op.f("ix_sweeps_confirm_job_id"), "sweeps", ["confirm_job_id"])
    op.create_table(
        "sweep_trials",
        sa.Column("sweep_id", sa.String(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("setting", sa.Integer(), nullable=False),
        sa.Column("rung", sa.Integer(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("job_id", sa.String(), nullable=True),
        sa.Column("status", sa.String(length=32), nullable=False),
        sa.Column("score", sa.Double(), nullable=True),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("error", sa.JSON(), nullable=True),
        sa.ForeignKeyConstraint(["sweep_id"], ["sweeps.id"], name=op.f("fk_sweep_trials_sweep_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_sweep_trials_job_id"), ondelete="SET NULL"),
        sa.PrimaryKeyConstraint("sweep_id", "number", name=op.f("pk_sweep_trials")),
        sa.UniqueConstraint("job_id", name=op.f("uq_sweep_trials_job_id")),
    )
    op.create_index("uq_sweep_trials_run", "sweep_trials", ["sweep_id", "setting", "rung", "seed"], unique=True)


def downgrade() -> None:
    op.drop_table("sweep_trials")
    op.drop_table("sweeps")
