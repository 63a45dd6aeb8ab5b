"""What a service manager is told: systemd's notification protocol, sd_notify(3), one datagram per change of state."""

from __future__ import annotations

import socket
from typing import Final

READY: Final = "READY=1"
STOPPING: Final = "STOPPING=1"


def status(text: str) -> str:
    """The message that `systemctl status` shows as the service's own words."""
    return "STATUS=" + text.replace("\n", " ")


def notify(address: str | None, *messages: str) -> bool:
    """Send messages to the service manager whose socket's `address` (NOTIFY_SOCKET) is given; whether it was sent.

    Nothing is sent where there is no service manager. One that cannot be reached is no reason to fail: False.
    """
    if not address:
        return False
    # A leading @ stands for the zero byte of Linux's abstract names.
    target = "\0" + address[1:] if address.startswith("@") else address
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.setblocking(False)
            sender.sendto("\n".join(messages).encode(), target)
    except OSError:
        return False
    return True
