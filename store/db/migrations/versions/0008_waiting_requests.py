"""Why a worker request waits, and until when, as jobs have it.

New columns that may be null: a worker of the version before writes its rows as it did.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

COLUMNS = {
    "not_before": sa.Double,
    "status_reason_code": sa.String,
    "status_reason_message": sa.String,
    "status_reason_since": sa.Double,
}


def upgrade() -> None:
    for name, type in COLUMNS.items():
        op.add_column("worker_requests", sa.Column(name, type(), nullable=True))


def downgrade() -> None:
    for name in reversed(COLUMNS):
        op.drop_column("worker_requests", name)
