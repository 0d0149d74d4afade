"""The command line: `python run.py` starts the server, and with a command's name does that instead. For `run.py`."""

import argparse
import importlib
import os
import sys
from pathlib import Path
from typing import NoReturn

from control_plane import __version__
from control_plane.commands.backup import back_up
from control_plane.commands.check import check
from control_plane.commands.refusals import CommandError
from control_plane.commands.restore import restore
from control_plane.commands.token import create_token
from control_plane.config import SettingsError, load_database_path
from control_plane.core.access import Role

EXIT_NOT_WELL = 1
EXIT_NOT_DONE = 2
NICENESS = 10
"""A server goes first where processor time is short."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """End with one line instead of the usage."""
        sys.stderr.write(f"{message[:1].upper()}{message[1:]}; see `python run.py --help`.\n")
        sys.exit(EXIT_NOT_DONE)


def main(arguments: list[str]) -> int:
    """Do what the arguments ask for; return the process's exit status."""
    asked = _parser().parse_args(arguments)
    if asked.command is None:
        # Not at the top of this file: it takes longer than a backup of a small database, which has no use for it.
        return int(importlib.import_module("control_plane.serve").main())
    try:
        return _run(asked, load_database_path())
    except (CommandError, SettingsError) as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_NOT_DONE


def _run(asked: argparse.Namespace, database: Path) -> int:
    os.nice(NICENESS)
    if asked.command == "check":
        return 0 if check(database, asked.file) else EXIT_NOT_WELL
    if asked.command == "backup":
        back_up(database, asked.file, overwrite=asked.overwrite)
    elif asked.command == "token":
        create_token(database, Role(asked.role), asked.name, asked.organization)
    else:
        restore(database, asked.file)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python run.py",
        description="Starts the control plane, or with a command works on its database: the one that DATABASE_URL "
        "names, in the environment or in the file .env.",
        epilog="docs/operations.md tells more. Exit status: 0 done, 1 check has found something, 2 not done.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)
    backup = commands.add_parser("backup", help="write a backup to FILE, also while the control plane runs")
    backup.add_argument("file", metavar="FILE", type=Path)
    backup.add_argument("--overwrite", action="store_true", help="replace FILE if it is an earlier backup")
    back = commands.add_parser("restore", help="put the backup FILE in the place of the database, which is kept")
    back.add_argument("file", metavar="FILE", type=Path)
    look = commands.add_parser("check", help="look the database over, or the backup FILE")
    look.add_argument("file", metavar="FILE", type=Path, nargs="?")
    token = commands.add_parser("token", help="`token create`: make an API token, also while the control plane runs")
    create = token.add_subparsers(dest="action", metavar="create", required=True, parser_class=_Parser).add_parser(
        "create"
    )
    create.add_argument("--role", required=True, choices=[role.value for role in Role], help="what it may do")
    create.add_argument("--name", default="made on the host", help="who or what uses it, for people")
    create.add_argument("--organization", default="default", help="the name of its organisation")
    return parser
