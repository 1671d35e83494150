"""The key that replaces a rotated one.

A column that may be null: an API of the version before writes its rows as it did. Of keys that were rotated before, the
replacement is unknown.
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("api_keys", sa.Column("replaced_by", sa.String(), nullable=True))


def downgrade() -> None:
    op.drop_column("api_keys", "replaced_by")
