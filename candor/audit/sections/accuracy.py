"""Stage `clean`: what the model says of the images as they came."""

import torch

from candor.attacks.margin import holds
from candor.audit.plan import Budget
from candor.audit.records import Row
from candor.audit.stage import Batch, Subject
from candor.terms import Goal


@torch.no_grad()
def clean(subject: Subject, batch: Batch, budget: Budget) -> list[Row]:
    """Predictions on the images as they came, each alone."""
    rows: list[Row] = []
    for row, label in enumerate(batch.labels.tolist()):
        logits = subject.network(batch.images[row : row + 1])
        own = batch.labels[row : row + 1]
        rows.append(
            {
                "position": batch.positions[row],
                "index": batch.indices[row],
                "identifier": batch.identifiers[row],
                "label": label,
                "prediction": int(logits.argmax(1)),
                "confidence": float(logits.softmax(1)[0, label]),
                "is_correct": not bool(holds(logits, own, Goal.ATTACK)),
                "is_above_chance": not bool(holds(logits, own, Goal.BTR)),
            }
        )
    return rows
