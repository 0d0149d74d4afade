"""`python -m agent`: reads the settings, puts the parts together, runs until a signal.

Exit codes: 0 after SIGTERM or SIGINT, 1 for a token that cannot be kept, 2 for settings that cannot work (one line on
stderr says which); those of --enroll-only are in `enrolling`.
A second signal ends the process at once; `docker compose` children go on in either case.
"""

import asyncio
import contextlib
import logging
import os
import signal
import sys

from agent.commands import Commands
from agent.compose import child_environment
from agent.connection import Connection
from agent.credentials import Credentials, TokenNotKeptError
from agent.enrolling import enroll_only
from agent.journal import Journal
from agent.outbox import Outbox
from agent.process import Surroundings
from agent.projects import ProjectError, Projects
from agent.runner import Runner
from agent.settings import Settings, SettingsError, read_settings
from agent.token_file import TokenFile

DRAIN_SECONDS = 3
"""How long a stop waits for answers that are ready to be delivered; the rest is on disk."""

log = logging.getLogger("agent")


def main() -> int:
    """Run the agent and return its exit code."""
    try:
        settings = read_settings(sys.argv[1:], os.environ)
        _set_up_logging(settings)
        projects, journal = _open_projects(settings)
        credentials = Credentials(settings, TokenFile(projects.state_dir, settings.server_url))
        return asyncio.run(_run(settings, projects, journal, credentials))
    except (SettingsError, ProjectError) as error:
        sys.stderr.write(f"agent: {error}\n")
        return 2
    except TokenNotKeptError as error:
        sys.stderr.write(f"agent: {error}\n")
        return 1
    except KeyboardInterrupt:  # of --enroll-only, which has no signal handlers of its own
        return 128 + signal.SIGINT


def _open_projects(settings: Settings) -> tuple[Projects, Journal]:
    try:
        projects = Projects(settings.projects_dir)
        projects.claim()
        return projects, Journal(projects.state_dir)
    except OSError as error:
        raise SettingsError(
            f"The projects directory {settings.projects_dir} cannot be used ({error.strerror}): give a directory that "
            "this user may write to with --projects-dir (PROJECTS_DIR)."
        ) from None


def _set_up_logging(settings: Settings) -> None:
    logging.basicConfig(
        stream=sys.stderr, level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    # On DEBUG it prints every header and frame: the token and Compose files.
    logging.getLogger("websockets").setLevel(logging.WARNING)


async def _run(settings: Settings, projects: Projects, journal: Journal, credentials: Credentials) -> int:
    outbox = Outbox(journal)
    around = Surroundings(child_environment(os.environ), projects.output_dir)
    runner = Runner(Commands(settings, projects, around), journal, outbox)
    connection = Connection(settings, credentials, outbox, runner.receive)
    if settings.enroll_only:
        return await enroll_only(connection, credentials, settings)
    stopped = _stop_on_signals()
    dialing = asyncio.create_task(connection.run())
    stopping = asyncio.create_task(stopped.wait())
    await asyncio.wait({dialing, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if dialing.done():
        dialing.result()
    log.info("Stopping.")
    runner.stop()
    if connection.connected:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(outbox.settled(), DRAIN_SECONDS)
    dialing.cancel()
    await asyncio.gather(dialing, return_exceptions=True)
    return 0


def _stop_on_signals() -> asyncio.Event:
    stopped = asyncio.Event()

    def on_signal(number: int) -> None:
        if stopped.is_set():
            os._exit(128 + number)
        stopped.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, on_signal, number)
    return stopped


if __name__ == "__main__":
    sys.exit(main())
