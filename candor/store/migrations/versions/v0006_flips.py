"""Images of which people say whether they show a class: their sets and assignments."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.create_table(
        "flip_sets",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("model", sa.String(63), nullable=False),
        sa.Column("weights_sha256", sa.String(64), nullable=False),
        sa.Column("data", sa.String(100), nullable=False),
        sa.Column("data_sha256", sa.String(64), nullable=False),
        sa.Column("class_names", sa.JSON, nullable=False),
        sa.Column("solver", sa.String(40), nullable=False),
        sa.Column("steps", sa.Integer, nullable=False),
        sa.Column("seed", sa.BigInteger, nullable=False),
        sa.Column("rho", sa.Double, nullable=False),
        sa.Column("norm", sa.String(10), nullable=False),
        sa.Column("searched", sa.Integer, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.UniqueConstraint(
            "weights_sha256", "data_sha256", "solver", "steps", "seed", "rho", "norm"
        ),
    )
    op.create_table(
        "flip_images",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("set_id", sa.Integer, sa.ForeignKey("flip_sets.id"), nullable=False),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("data_index", sa.Integer, nullable=False),
        sa.Column("identifier", sa.String, nullable=False),
        sa.Column("label", sa.Integer, nullable=False),
        sa.Column("target", sa.Integer, nullable=False),
        sa.Column("rmse", sa.Double, nullable=False),
        sa.Column("place", sa.Integer, nullable=False),
        sa.Column("shown_png", sa.LargeBinary, nullable=False),
        sa.Column("shown_sha256", sa.String(64), nullable=False),
        sa.UniqueConstraint("set_id", "data_index"),
    )
    op.create_index("flip_images_by_place", "flip_images", ["place"])
    op.create_table(
        "flip_assignments",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("image_id", sa.Integer, sa.ForeignKey("flip_images.id"), nullable=False),
        sa.Column("slot", sa.Integer, nullable=False),
        sa.Column("annotator_id", sa.Integer, sa.ForeignKey("annotators.id"), nullable=False),
        sa.Column("verdict", sa.String(20)),
        sa.Column("expires_at", sa.Double),
        sa.Column("changed_at", sa.Double, nullable=False),
        sa.UniqueConstraint("image_id", "slot"),
        sa.UniqueConstraint("image_id", "annotator_id"),
    )
    columns = ["annotator_id", "changed_at"]
    op.create_index("flip_assignments_by_annotator", "flip_assignments", columns)
    op.create_index("flip_assignments_by_expiry", "flip_assignments", ["expires_at"])


def downgrade() -> None:
    for table in ("flip_assignments", "flip_images", "flip_sets"):
        op.drop_table(table)
