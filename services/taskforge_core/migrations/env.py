"""Alembic's entry point: runs the revisions on the connection that `migrate` hands over."""

from alembic import context

from taskforge_core.migrating import SCHEMA

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    version_table_schema=SCHEMA,
    # A revision that must leave its transaction (CREATE INDEX CONCURRENTLY) then can.
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()
