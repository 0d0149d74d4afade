"""Whose the files are that root makes beside a database: the owner's of the database, who could not open them else.

Called for every file that a command or a claim makes there; does nothing for anybody but root.
"""

import os
from pathlib import Path


def hand_over(file: int, database: Path) -> None:
    """Give an open file to the owner of the database, or of its directory where there is no database yet."""
    if os.geteuid() != 0:
        return
    owner = os.stat(database if database.exists() else database.parent)
    os.fchown(file, owner.st_uid, owner.st_gid)
