"""`token create`: makes a token of the API on the host, for an operator who has lost every one.

While a control plane runs on the database it is that which stores the token (`store.errands`); else this does,
under the same claim. The token is shown once, on stdout, when it is stored.
"""

import os
import secrets
import time
from pathlib import Path

from control_plane.claim import claim_database
from control_plane.commands.backup import check_is_there
from control_plane.commands.console import say
from control_plane.commands.refusals import CommandError, reason_of
from control_plane.core.access import Role
from control_plane.core.errors import ControlPlaneError
from control_plane.core.startup import StartupError
from control_plane.core.tokens import TokenKind, digest_of, make_token
from control_plane.operations.tokens import check_name
from control_plane.ownership import hand_over
from control_plane.store import errands
from control_plane.store.database import open_engine
from control_plane.store.errands import TokenErrand
from control_plane.store.migrate import migrate

PATIENCE_SECONDS = 30.0
POLL_SECONDS = 0.05


def create_token(database: Path, role: Role, name: str, organization: str) -> None:
    """Make a token, store it and print it. Raises CommandError, and nothing was stored."""
    check_is_there(database)
    token = make_token(TokenKind.API)
    errand = TokenErrand(name, role.value, organization, digest_of(token).hex())
    try:
        check_name(name)
        if claim_database(database):
            _store(database, errand)
        else:
            _ask(errands.errands_directory(database), database, errand)
    except ControlPlaneError as error:
        raise CommandError(error.detail) from None
    except StartupError as error:
        raise CommandError(str(error)) from None
    except OSError as error:
        raise CommandError(f"No token can be made for {database}: {reason_of(error)}.") from None
    say(token)


def _store(database: Path, errand: TokenErrand) -> None:
    url = f"sqlite:///{database}"
    migrate(url)
    engine = open_engine(url, read_only=False, pool_size=1)
    try:
        with engine.begin() as connection:
            [outcome] = errands.carry_out_errands(connection, [errand])
            if isinstance(outcome, Exception):
                raise outcome
    finally:
        engine.dispose()
    _hand_over_files(database)


def _hand_over_files(database: Path) -> None:
    """Give what SQLite may have left beside the database to its owner, who could not open it else."""
    for path in (database.with_name(f"{database.name}{suffix}") for suffix in ("-wal", "-shm")):
        if path.exists():
            _give(path, database)


def _ask(directory: Path, database: Path, errand: TokenErrand) -> None:
    """Have the control plane that runs store it."""
    key = secrets.token_hex(8)
    directory.mkdir(mode=0o700, exist_ok=True)
    _give(directory, database)
    errands.leave_request(directory, key, errand, lambda file: hand_over(file, database))
    answered = _await_answer(directory, key) or (
        not errands.take_back(directory, key) and _await_answer(directory, key)
    )
    if not answered:
        raise CommandError(
            f"The control plane that runs on {database} did not make the token within {PATIENCE_SECONDS:.0f} s: see "
            "its log, or stop it and try again."
        )


def _await_answer(directory: Path, key: str) -> bool:
    """Whether the token was made before patience ended. Raises CommandError when it was refused."""
    until = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < until:
        there, error = errands.take_answer(directory, key)
        if error is not None:
            raise CommandError(error)
        if there:
            return True
        time.sleep(POLL_SECONDS)
    return False


def _give(path: Path, database: Path) -> None:
    """Give a file or directory to the owner of the database; never one that a link leads to, which may be another's."""
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        hand_over(file, database)
    finally:
        os.close(file)
