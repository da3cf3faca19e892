"""What TorchServe's log says of workers that die again and again while the service starts."""

import re
from pathlib import Path

# TorchServe starts a dead worker again, at growing intervals and for ever.
_AGAIN = "Auto recovery failed again"
_MOST_DEATHS = 2
_WORKER_LINE = re.compile(r"MODEL_LOG (?P<text>\S.*)")
# The last line of a Python traceback, as in "torch.OutOfMemoryError: no memory".
_ERROR_LINE = re.compile(r"MODEL_LOG (?P<text>[A-Za-z_][\w.]*(?:Error|Exception|Exit)\b.*)")
_NOISE = (
    "Backend worker process died.",
    "Connection accepted",
    "Listening on port",
    "Python runtime",
    "Successfully loaded",
    "Torch worker started",
    "[PID]",
    "model_name:",
    "s_name_part0",
)


def looping_death(log: Path) -> str:
    """The last thing a worker said that cannot start, empty while none has died several times."""
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    if sum(_AGAIN in line for line in lines) < _MOST_DEATHS:
        return ""
    return _last(_ERROR_LINE, lines) or _last(_WORKER_LINE, lines) or "nothing at all"


def _last(pattern: re.Pattern[str], lines: list[str]) -> str:
    texts = (match["text"] for line in lines if (match := pattern.search(line)))
    said = [text for text in texts if not text.startswith(_NOISE)]
    return said[-1] if said else ""
