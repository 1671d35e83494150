"""What a data set's annotation files hash to, and what of such files each worker lacks.

Only new columns that may be null: a worker of the version before writes its rows as it did.
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


def downgrade() -> None:
    op.drop_column("workers", "lacks")
    op.drop_column("datasets", "hashes")
