"""How Alembic runs the migrations: on the connection `gateway.store.engine` hands over."""

from alembic import context

from gateway.store.models import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    transactional_ddl=True,
)
context.run_migrations()
