"""Starts the server without one of its guards: `python -m tests.support.sabotage NAME`."""

import importlib
import sys

from control_plane.serve import main

if __name__ == "__main__":
    importlib.import_module(f"tests.support.sabotage.{sys.argv[1]}").apply()
    sys.exit(main())
