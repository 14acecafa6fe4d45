"""Read by every Python process that the tests start, see ``tests/conftest.py``."""

import gc

# Imports make a million objects that stay, and they are most of what a short training costs. To
# look for garbage among them at the usual pace takes a tenth to a sixth of their time.
gc.set_threshold(50_000, 20, 50)
