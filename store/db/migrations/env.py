"""Alembic's entry point: on the connection that `store.db.schema` hands over, else on the one of `FRS_DATABASE_URL`."""

from alembic import context
from sqlalchemy import Connection

from store.db.database import open_database
from store.db.tables import Base
from store.settings import Settings


def migrate(connection: Connection) -> None:
    is_sqlite = connection.dialect.name == "sqlite"
    context.configure(connection=connection, target_metadata=Base.metadata, render_as_batch=is_sqlite)
    with context.begin_transaction():
        context.run_migrations()


if (handed_over := context.config.attributes.get("connection")) is not None:
    migrate(handed_over)
else:
    with open_database(Settings().database_url).write() as session:
        migrate(session.connection())
        session.commit()
