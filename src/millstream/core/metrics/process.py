"""What the system says of this process."""

from __future__ import annotations

import resource
import sys
from pathlib import Path
from typing import Final

_STATUS: Final = Path("/proc/self/status")
_MAXRSS_UNIT_BYTES: Final = 1 if sys.platform == "darwin" else 1024


def peak_memory_bytes() -> int:
    """Return the most resident memory that this process ever held at once.

    On Linux that is VmHWM: `ru_maxrss` begins with what the process held that started this one.
    """
    try:
        status = _STATUS.read_text()
    except FileNotFoundError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _MAXRSS_UNIT_BYTES
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024
