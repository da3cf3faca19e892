"""Candidates, annotators and assignments: the first tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "candidate_sets",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("model", sa.String(63), nullable=False),
        sa.Column("weights_sha256", sa.String(64), nullable=False),
        sa.Column("data", sa.String(100), nullable=False),
        sa.Column("data_sha256", sa.String(64), nullable=False),
        sa.Column("class_names", sa.JSON, nullable=False),
        sa.Column("solver", sa.String(40), nullable=False),
        sa.Column("steps", sa.Integer, nullable=False),
        sa.Column("seed", sa.BigInteger, nullable=False),
        sa.Column("searched", sa.Integer, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.UniqueConstraint("weights_sha256", "data_sha256", "solver", "steps", "seed"),
    )
    op.create_table(
        "candidates",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("set_id", sa.Integer, sa.ForeignKey("candidate_sets.id"), nullable=False),
        sa.Column("data_index", sa.Integer, nullable=False),
        sa.Column("identifier", sa.String, nullable=False),
        sa.Column("label", sa.Integer, nullable=False),
        sa.Column("adversarial_class", sa.Integer, nullable=False),
        sa.Column("margin", sa.Double, nullable=False),
        sa.Column("rmse", sa.Double, nullable=False),
        sa.Column("original_png", sa.LargeBinary, nullable=False),
        sa.Column("adversarial_png", sa.LargeBinary, nullable=False),
        sa.Column("original_sha256", sa.String(64), nullable=False),
        sa.Column("adversarial_sha256", sa.String(64), nullable=False),
        sa.UniqueConstraint("set_id", "data_index"),
    )
    op.create_index("candidates_by_rmse", "candidates", ["set_id", "rmse"])
    op.create_table(
        "annotators",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String(60), nullable=False, unique=True),
        sa.Column("created_at", sa.Double, nullable=False),
    )
    op.create_table(
        "assignments",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("candidate_id", sa.Integer, sa.ForeignKey("candidates.id"), nullable=False),
        sa.Column("slot", sa.Integer, nullable=False),
        sa.Column("annotator_id", sa.Integer, sa.ForeignKey("annotators.id"), nullable=False),
        sa.Column("verdict", sa.String(20)),
        sa.Column("expires_at", sa.Double),
        sa.Column("changed_at", sa.Double, nullable=False),
        sa.UniqueConstraint("candidate_id", "slot"),
        sa.UniqueConstraint("candidate_id", "annotator_id"),
    )
    op.create_index("assignments_by_annotator", "assignments", ["annotator_id", "changed_at"])
    op.create_index("assignments_by_expiry", "assignments", ["expires_at"])


def downgrade() -> None:
    for table in ("assignments", "annotators", "candidates", "candidate_sets"):
        op.drop_table(table)
