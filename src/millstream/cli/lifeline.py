"""A child's end of the pipe by which it hears that its parent is gone, however that went (SIGKILL included)."""

from __future__ import annotations

import os
import signal
import threading
from typing import Final

_STOP_TIMEOUT_S: Final = 10.0


def die_with_parent(life: int) -> None:
    """Stop this process once the pipe `life` ends, whose other end only the parent holds; returns at once."""
    threading.Thread(target=_wait_for_end, args=(life,), name="parent-watch", daemon=True).start()


def _wait_for_end(life: int) -> None:
    while os.read(life, 1):
        pass
    killer = threading.Timer(_STOP_TIMEOUT_S, os.kill, (os.getpid(), signal.SIGKILL))
    killer.daemon = True
    killer.start()
    os.kill(os.getpid(), signal.SIGTERM)
