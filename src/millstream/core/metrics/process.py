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
        said = _STATUS.read_text().partition("VmHWM:")[2]
    except OSError:
        said = ""
    # Sandboxes have the file without that line.
    return (
        int(said.split()[0]) * 1024 if said else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _MAXRSS_UNIT_BYTES
    )
