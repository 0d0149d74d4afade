"""The claim on a database: one process at a time runs on it or replaces it. `serve` and the command `restore` make it.

A lock on the file `<database>.lock`, which the kernel takes back however the process ends.
"""

import fcntl
import os
from pathlib import Path

from control_plane.ownership import hand_over


def claim_database(path: Path) -> bool:
    """Keep others off this database until the process ends; False if another one has claimed it.

    SQLite would let two control planes write, and each would take the other's agents for offline. Raises OSError
    when the lock's file cannot be made or opened.
    """
    real = path.resolve()  # as SQLite does, so that every name of the database leads to the same lock
    lock = os.open(real.with_name(f"{real.name}.lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    hand_over(lock, real)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return False
    return True
