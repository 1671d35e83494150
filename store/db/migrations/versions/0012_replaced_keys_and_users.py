"""The key that replaces a rotated one, the user of a row of a signed-in user, and the sizes of registered students.

Columns that may be null: an API of the version before writes its rows as it did. Of keys that were rotated before, the
replacement is unknown; users are added at their next sign-in.
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

COLUMNS = ("replaced_by", "user_digest")


def upgrade() -> None:
    for column in COLUMNS:
        op.add_column("api_keys", sa.Column(column, sa.String(), nullable=True))
    op.create_index("ix_api_keys_user_digest", "api_keys", ["user_digest"])
    op.execute(
        "UPDATE detectors SET bytes = (SELECT checkpoints.bytes FROM checkpoints"
        " WHERE checkpoints.job_id = detectors.job_id AND checkpoints.key = detectors.weights_key)"
        " WHERE bytes IS NULL"
    )


def downgrade() -> None:
    op.drop_index("ix_api_keys_user_digest", "api_keys")
    for column in COLUMNS:
        op.drop_column("api_keys", column)
