"""Small runs in processes of their own, for tests that kill them or start several at once.

python -m tests.training.worker '{"folder": ..., "stops": [...], "config": {...}}' ...
"""

import json
import sys
from pathlib import Path

import torch

from tests.training.tiny import colours, config_of, new_network
from training import loop
from training.distributed import process_group, rank


def run(folder, stops, config):
    """Train until each of ``stops`` in turn, with a new network that resumes; keep the weights."""
    for stop in stops:
        network = new_network()
        state = loop.train(
            network,
            colours(),
            config_of(**config),
            run_dir=folder,
            report=lambda progress: print(progress.step, flush=True),
            stop_after=stop,
        )
    if rank() == 0:
        result = {"weights": network.state_dict(), "integral": state.integral}
        torch.save(result | {"history": state.history}, folder / "result.pt")


def main():
    torch.set_num_threads(1)
    loop._CHECKPOINT_SECONDS = 0.0  # after every step
    with process_group():
        for text in sys.argv[1:]:
            job = json.loads(text)
            run(Path(job["folder"]), job["stops"], job["config"])


if __name__ == "__main__":
    main()
