"""Runs an audit of the small network into a folder; `test_run` kills it.  Usage: FOLDER SHARD."""

import sys
import time
from pathlib import Path

from candor.audit.facts import collect, write_facts
from candor.audit.ledger import Ledger
from candor.audit.plan import Shard
from candor.audit.run import Progress, run_blocks
from candor.audit.stage import Subject
from tests.fixtures.audit import card, plan_for, small_data, small_network

STAGES = ("clean", "paper", "ddn", "fmn", "square")


def main(folder: Path, shard: Shard) -> None:
    network = small_network()
    data = small_data(network, 24)
    subject = Subject(network=network, card=card())
    plan = plan_for(data, STAGES, batch_size=2)
    ledger = Ledger(folder, plan)
    write_facts(folder, collect(network, subject.card, data))

    def report(progress: Progress) -> None:
        # Long enough for a kill to fall between any two writes.
        time.sleep(0.05)

    run_blocks(ledger, plan, subject, data, shard=shard, report=report)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Shard.parse(sys.argv[2]))
