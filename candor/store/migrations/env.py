"""How Alembic runs the migrations: on the connection `candor.store.engine` hands over."""

from alembic import context

from candor.store.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    transactional_ddl=True,
)
context.run_migrations()
