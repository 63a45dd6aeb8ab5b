"""A worker process of the local engine that runs, and is never ready."""

import threading

print("waits for something", flush=True)
threading.Event().wait()
