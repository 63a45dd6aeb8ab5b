"""A worker process of the local engine that ends before it is ready."""

import sys

sys.exit("nothing works here")
