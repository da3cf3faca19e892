"""Work that many workers share, in blocks."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "work_blocks",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("work", sa.String(64), nullable=False),
        sa.Column("start", sa.Integer, nullable=False),
        sa.Column("stop", sa.Integer, nullable=False),
        sa.Column("is_done", sa.Boolean, nullable=False),
        sa.Column("worker", sa.String(100)),
        sa.Column("expires_at", sa.Double),
        sa.UniqueConstraint("work", "start"),
    )


def downgrade() -> None:
    op.drop_table("work_blocks")
