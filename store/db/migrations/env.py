"""Alembic's entry point.

Migrates on the connection that `store.db.schema` passes in, or on a new connection to `FRS_DATABASE_URL`.
"""

from alembic import context
from sqlalchemy import Connection

from store.db.database import open_database
from store.db.webhook_tables import Webhook
from store.settings import Settings

METADATA = Webhook.metadata
"""All tables: the module of the webhooks imports the module of the others."""


def migrate(connection: Connection) -> None:
    """Run the requested revisions in one transaction; on SQLite, alter tables by recreating them."""
    is_sqlite = connection.dialect.name == "sqlite"
    context.configure(connection=connection, target_metadata=METADATA, render_as_batch=is_sqlite)
    with context.begin_transaction():
        context.run_migrations()


if (existing_connection := context.config.attributes.get("connection")) is not None:
    migrate(existing_connection)
else:
    with open_database(Settings().database_url).write() as session:
        migrate(session.connection())
        session.commit()
