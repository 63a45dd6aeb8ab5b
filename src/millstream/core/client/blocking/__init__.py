"""Clients without await: one background event loop for the whole process, and calls that wait for it."""

from millstream.core.client.blocking.client import BlockingClient
from millstream.core.client.blocking.loop_thread import ForkedError, LoopThread, background_loop

__all__ = ["BlockingClient", "ForkedError", "LoopThread", "background_loop"]
