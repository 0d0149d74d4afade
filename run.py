"""Starts the control plane: `python run.py`, from any directory, which then holds the database and `.env`.

Settings come from the environment or `.env`; docs/settings.md tells them. Ends with status 0 after SIGTERM or
Ctrl+C, and 2 with a line on stderr when it cannot start with these settings. `python run.py --help` tells of
the commands that back the database up, restore it and check it.
"""

import sys

from control_plane.command_line import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
