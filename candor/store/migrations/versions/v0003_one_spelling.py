"""Names in one spelling (NFC): annotators, and classes of candidate sets.

Two annotators whose names are two spellings of one text become one.  Where both judged the same
candidate, the later verdict stays.
"""

import unicodedata
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_sets = sa.table("candidate_sets", sa.column("id", sa.Integer), sa.column("class_names", sa.JSON))
_annotators = sa.table("annotators", sa.column("id", sa.Integer), sa.column("name", sa.String))
_assignments = sa.table(
    "assignments",
    *(sa.column(name, sa.Integer) for name in ("id", "candidate_id", "annotator_id")),
    sa.column("verdict", sa.String),
    sa.column("changed_at", sa.Double),
)


def upgrade() -> None:
    bind = op.get_bind()
    _normalise_classes(bind)
    rows = bind.execute(sa.select(_annotators).order_by(_annotators.c.id)).all()
    ids = {row.name: row.id for row in rows}
    for row in rows:
        name = _normalised(row.name)
        if name == row.name:
            continue
        if name in ids:
            _merge(bind, row.id, ids[name])
        else:
            ids[name] = row.id
            where = _annotators.c.id == row.id
            bind.execute(sa.update(_annotators).where(where).values(name=name))


def downgrade() -> None:
    """Nothing: what was written in which spelling is no longer known."""


def _normalise_classes(bind: sa.Connection) -> None:
    for row in bind.execute(sa.select(_sets)).all():
        names = [_normalised(name) for name in row.class_names]
        if names != row.class_names:
            where = _sets.c.id == row.id
            bind.execute(sa.update(_sets).where(where).values(class_names=names))


def _merge(bind: sa.Connection, other: int, kept: int) -> None:
    """What annotator ``other`` judged becomes that of ``kept``."""
    whose = _assignments.c.annotator_id
    known = {
        row.candidate_id: row
        for row in bind.execute(sa.select(_assignments).where(whose == kept)).all()
    }
    for row in bind.execute(sa.select(_assignments).where(whose == other)).all():
        mine = known.get(row.candidate_id)
        dropped = row if mine is not None and _rank(mine) >= _rank(row) else mine
        if dropped is not None:
            bind.execute(sa.delete(_assignments).where(_assignments.c.id == dropped.id))
        if dropped is not row:
            where = _assignments.c.id == row.id
            bind.execute(sa.update(_assignments).where(where).values(annotator_id=kept))
    bind.execute(sa.delete(_annotators).where(_annotators.c.id == other))


def _rank(row: Any) -> tuple[bool, float]:
    """A verdict goes before a candidate that is only leased, and the later before the earlier."""
    return row.verdict is not None, row.changed_at


def _normalised(name: str) -> str:
    return unicodedata.normalize("NFC", name)
