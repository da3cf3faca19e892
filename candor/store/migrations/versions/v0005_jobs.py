"""Jobs of every kind in one table; those before were of reports."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

_COLUMNS = (
    *("id", "public_id", "tenant", "idempotency_key", "request", "request_sha256", "state"),
    *("cancel_requested", "progress", "result", "reason", "worker", "expires_at", "attempts"),
    *("created_at", "started_at", "ended_at"),
)


def upgrade() -> None:
    op.create_table(
        "jobs",
        sa.Column("kind", sa.String(20), nullable=False),
        *_columns(),
        sa.UniqueConstraint("tenant", "kind", "idempotency_key"),
    )
    op.create_index("jobs_by_state", "jobs", ["state", "id"])
    names = ", ".join(_COLUMNS)
    op.execute(f"INSERT INTO jobs (kind, {names}) SELECT 'report', {names} FROM report_jobs")
    op.drop_table("report_jobs")
    _continue_ids("jobs")


def downgrade() -> None:
    op.create_table("report_jobs", *_columns(), sa.UniqueConstraint("tenant", "idempotency_key"))
    op.create_index("report_jobs_by_state", "report_jobs", ["state", "id"])
    names = ", ".join(_COLUMNS)
    op.execute(f"INSERT INTO report_jobs ({names}) SELECT {names} FROM jobs WHERE kind = 'report'")
    op.drop_table("jobs")
    _continue_ids("report_jobs")


def _columns() -> list[sa.Column[object]]:
    return [
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("public_id", sa.String(32), nullable=False, unique=True),
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("idempotency_key", sa.String(100)),
        sa.Column("request", sa.JSON, nullable=False),
        sa.Column("request_sha256", sa.String(64), nullable=False),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("cancel_requested", sa.Boolean, nullable=False),
        sa.Column("progress", sa.JSON),
        sa.Column("result", sa.JSON),
        sa.Column("reason", sa.Text),
        sa.Column("worker", sa.String(100)),
        sa.Column("expires_at", sa.Double),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("started_at", sa.Double),
        sa.Column("ended_at", sa.Double),
    ]


def _continue_ids(table: str) -> None:
    """New rows after those that came with their numbers."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), "
            f"(SELECT coalesce(max(id), 0) + 1 FROM {table}), false)"
        )
