"""What a data set's annotation files hash to, what of such files each worker lacks, and an index to count an owner's jobs.

New columns that may be null, and an index: a worker of the version before writes its rows as it did.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("datasets", sa.Column("hashes", sa.JSON(), nullable=True))
    op.add_column("workers", sa.Column("lacks", sa.JSON(), nullable=True))
    op.create_index("ix_jobs_owner_status", "jobs", ["owner", "status"], if_not_exists=True)  # a 0002 of before made it


def downgrade() -> None:
    op.drop_index("ix_jobs_owner_status", "jobs", if_exists=True)
    op.drop_column("workers", "lacks")
    op.drop_column("datasets", "hashes")
