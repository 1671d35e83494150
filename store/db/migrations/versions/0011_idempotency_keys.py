"""`Idempotency-Key` of the request that created a webhook or an API key.

Columns that may be null, and indexes: an API of the version before writes its rows as it did.
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

TABLES = ("webhooks", "api_keys")
COLUMNS = ("idempotency_key", "idempotency_digest")


def upgrade() -> None:
    for table in TABLES:
        for column in COLUMNS:
            op.add_column(table, sa.Column(column, sa.String(), nullable=True))
        op.create_index(f"uq_{table}_owner_idempotency_key", table, ["owner", "idempotency_key"], unique=True)


def downgrade() -> None:
    for table in TABLES:
        op.drop_index(f"uq_{table}_owner_idempotency_key", table)
        for column in COLUMNS:
            op.drop_column(table, column)
