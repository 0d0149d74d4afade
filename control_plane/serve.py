"""The process: settings, secrets, logging and the listening socket, then uvicorn until a signal; `run.py` calls it.

Everything that can be refused is refused before the app exists, in one line on stderr and with exit status 2.
The port is listened on first: it keeps a second server off this one's database while both start, and agents
that reconnect meanwhile wait in the backlog instead of backing off.
"""

import asyncio
import contextlib
import errno
import gc
import resource
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import FrameType

import structlog
import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from control_plane import __version__
from control_plane.announcement import announcement, http_url
from control_plane.checking.processes import ProcessChecker
from control_plane.claim import claim_database
from control_plane.config import Settings, SettingsError, load_settings
from control_plane.connections import HttpProtocol
from control_plane.core import protocol
from control_plane.core.startup import StartupError
from control_plane.logs import configure_logging
from control_plane.main import create_app
from control_plane.operations.context import ControlPlane
from control_plane.operations.draining import drain
from control_plane.operations.grace import MOMENT_SECONDS
from control_plane.secrets import Secrets, resolve_secrets
from control_plane.tls import Tls, load_tls
from control_plane.ws.socket import AgentSocketProtocol

EXIT_CONFIGURATION = 2
EXIT_CRASH = 1
KEEP_ALIVE_SECONDS = 75
"""Longer than the 60 s after which common proxies drop an idle upstream connection, so that they close first."""

GC_THRESHOLDS = (5_000, 10, 100)
"""Allocations before a young collection, and how many of one generation make one of the next.

While 3,000 agents connected and talked, Python's own (700, 10, 10) made five full collections, of up to 0.45 s
each and 1.4 s together, in which no agent was served; with these and the program itself frozen there was none.
"""

TLS_HANDSHAKE_SECONDS = 10.0
"""What agents give the whole of theirs."""
TLS_SHUTDOWN_SECONDS = 2.0
"""How long the other side may take to say that it has understood an end."""

log = structlog.get_logger()


def main() -> int:
    """Run the server until SIGTERM or SIGINT; return the process's exit status."""
    _end_quietly_while_starting()
    warnings: list[str] = []
    try:
        settings = load_settings(warn=warnings.append)
        tls = load_tls(settings)
        listener = listen(settings)
        _claim(settings.database_path)
        secrets, told = resolve_secrets(settings)
    except SettingsError as error:
        sys.stderr.write("".join(f"Warning: {line}\n" for line in warnings) + f"{error}\n")
        return EXIT_CONFIGURATION
    configure_logging(settings.log_format, settings.log_level)
    for line in warnings:
        log.warning(line)
    base_url = http_url(settings.host, listener.getsockname()[1], secure=tls is not None)
    if told is not None:
        sys.stdout.write(announcement(base_url, told))
        sys.stdout.flush()
    with listener:
        return _run(settings, secrets, listener, base_url, tls)


def _claim(path: Path) -> None:
    try:
        claimed = claim_database(path)
    except OSError as error:
        raise SettingsError(
            f"DATABASE_URL: {error.filename}, by which other control planes are kept off, cannot be used "
            f"({error.strerror}): give it to this user."
        ) from None
    if not claimed:
        raise SettingsError(
            f"DATABASE_URL: another control plane runs on {path}; stop it, or give this one a database of its own."
        )


def listen(settings: Settings) -> socket.socket:
    """Return a socket that listens on HOST and PORT; SettingsError when it cannot."""
    host, port = settings.host, settings.port
    try:
        # IPv4 first where a name has both: clients that are given the name try both.
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = min(found, key=lambda info: info[0] != socket.AF_INET)
        both = family == socket.AF_INET6 and host == "::" and socket.has_dualstack_ipv6()
        return socket.create_server(address[:2], family=family, backlog=settings.backlog, dualstack_ipv6=both)
    except OSError as error:
        raise SettingsError(_why_not_bound(host, port, error)) from None


def _why_not_bound(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"PORT {port} on {host} is in use: stop the program that has it, or set PORT to another one."
    if error.errno == errno.EADDRNOTAVAIL:
        return f"HOST {host} is not an address of this machine: set it to one, or to 0.0.0.0 for all of them."
    if error.errno == errno.EACCES:
        return f"PORT {port} needs more rights than this user has: set PORT to 1024 or above."
    return f"HOST {host} and PORT {port} cannot be listened on ({error.strerror})."


def _run(settings: Settings, secrets: Secrets, listener: socket.socket, base_url: str, tls: Tls | None) -> int:
    _raise_open_files_limit()
    refusals: list[StartupError] = []
    try:
        app = create_app(settings, secrets, start_checker=ProcessChecker, tls=tls)
        config = _uvicorn_config(_guarded(app, refusals), settings)
        _Server(config, base_url, lambda: app.state.control_plane, tls).run(sockets=[listener])
    except StartupError as error:
        refusals.append(error)
    except SystemExit as ended:
        # Uvicorn's way out when the lifespan does not start; the guard has told or kept the reason.
        if not refusals:
            return EXIT_CRASH if ended.code else 0
    if refusals:
        sys.stderr.write(f"{refusals[0]}\n")
        return EXIT_CONFIGURATION
    log.info("stopped")
    return 0


def _uvicorn_config(app: ASGIApp, settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        interface="asgi3",
        loop="uvloop",
        http=HttpProtocol,
        ws=AgentSocketProtocol,
        ws_max_size=protocol.MAX_MESSAGE_BYTES,
        # Compressing costs 35 KiB more per agent and slows a fleet's return past its handshake limit.
        ws_per_message_deflate=False,
        ws_ping_interval=settings.agent_ping_interval_seconds,
        ws_ping_timeout=settings.agent_ping_timeout_seconds,
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=settings.backlog,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
    )


class _Server(uvicorn.Server):
    """Uvicorn's server, which says where it is ready, drains first, and ends a wanted stop with status 0.

    `plane` returns the control plane, which there is from the end of `startup` on.
    """

    def __init__(
        self, config: uvicorn.Config, base_url: str, plane: Callable[[], ControlPlane], tls: Tls | None
    ) -> None:
        super().__init__(config)
        self._tls = tls
        self._base_url = base_url
        self._plane = plane

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        # What is imported by now lives as long as the process: no collection needs to walk it again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets if self._tls is None else [])
        if self._tls is not None:
            await self._listen_with(self._tls, sockets or [])
        log.info("listening", url=self._base_url, version=__version__)

    async def _listen_with(self, tls: Tls, sockets: list[socket.socket]) -> None:
        """What uvicorn does with plain sockets; it would give a handshake a minute, and a stop half of one."""
        self._loop.add_signal_handler(signal.SIGHUP, tls.ask_reload)
        for listener in sockets:
            server = await self._loop.create_server(
                self._new_connection,
                sock=listener,
                backlog=self.config.backlog,
                ssl=tls.context,
                ssl_handshake_timeout=TLS_HANDSHAKE_SECONDS,
                ssl_shutdown_timeout=TLS_SHUTDOWN_SECONDS,
            )
            self.servers.append(server)

    def _new_connection(self) -> asyncio.Protocol:
        return HttpProtocol(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # Uvicorn closes all sockets at once, and tells the app only when every request has ended.
        await drain(self._plane())
        await super().shutdown(sockets)

    async def _wait_tasks_to_complete(self) -> None:
        """Wait for requests that still run; TimeoutError, at which uvicorn cancels them, when the grace is over."""
        if not await self._plane().grace.allows(super()._wait_tasks_to_complete(), at_least=MOMENT_SECONDS):
            raise TimeoutError

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # Not uvicorn's own: it would raise the signal again after the shutdown, and the process would die of it.
        if self.should_exit and self.started:
            self._loop.call_soon_threadsafe(self._plane().grace.end)
        self.should_exit = True


def _guarded(app: ASGIApp, refusals: list[StartupError]) -> ASGIApp:
    """Return `app`; what keeps it from starting is logged once, or kept in `refusals` when it is for the operator."""

    async def lifespan(scope: Scope, receive: Receive, send: Send) -> None:
        async def without_traceback(message: Message) -> None:
            await send({**message, "message": ""} if message["type"].endswith(".failed") else message)

        try:
            await app(scope, receive, without_traceback)
        except StartupError as error:
            refusals.append(error)
            raise
        except Exception:
            log.exception("the lifespan failed")
            raise

    def asgi(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        # Not a coroutine of its own: nothing is added to the path of a request.
        return lifespan(scope, receive, send) if scope["type"] == "lifespan" else app(scope, receive, send)

    return asgi


def _raise_open_files_limit() -> None:
    """Each agent takes a descriptor, and the usual soft limit of 1,024 would turn most of a fleet away."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Some systems say "unlimited" and then refuse it; the soft limit stays as it was.
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _end_quietly_while_starting() -> None:
    """Until uvicorn has its own handlers nothing has been accepted, so a signal may simply end the process."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
