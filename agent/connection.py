"""The socket to the control plane: dials it for ever, reads commands, writes what the outbox holds.

`__main__` runs one of these. One task writes and one reads; a final answer counts as delivered only when a
ping sent after it was answered, so nothing that a dying socket swallowed is forgotten.
"""

import asyncio
import logging
import random
import secrets
from collections.abc import Callable

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from agent import __version__, host, refusals
from agent.credentials import Credentials, NoTokenGivenError, Source
from agent.outbox import Outbox
from agent.settings import Settings
from agent.tls import context_for, explain_tls
from control_plane.core import wire
from control_plane.core.wire import Capability

FIRST_DELAY_SECONDS = 1.0
MAX_DELAY_SECONDS = 120.0
FIRST_REFUSED_DELAY_SECONDS = 2.0
MAX_REFUSED_DELAY_SECONDS = 300.0
"""After HTTP 401 and 403, which only an operator mends: seldom, but without anybody going to the host for it."""
HANDSHAKE_SECONDS = 10
PING_SECONDS = 20
"""Between pings, and for their answers: a dead control plane is noticed within 40 s."""
CLOSE_SECONDS = 2

FAILURES = (OSError, WebSocketException, ImportError, NoTokenGivenError)
"""What an attempt that fails may raise, and that another attempt may mend."""

log = logging.getLogger(__name__)


def delay_bounds(failures: int, error: Exception | None = None) -> tuple[float, float]:
    """Return the shortest and the longest wait in seconds after `failures` failed attempts in a row and `error`."""
    doubled = 2 ** min(failures, 10)
    if isinstance(error, NoTokenGivenError) or refusals.is_status(error, 401, 403):
        longest = min(FIRST_REFUSED_DELAY_SECONDS * doubled, MAX_REFUSED_DELAY_SECONDS)
        return longest / 2, longest
    # Full jitter: a fleet that lost its control plane must not come back all at once.
    return 0.0, min(FIRST_DELAY_SECONDS * doubled, MAX_DELAY_SECONDS)


def explain(error: Exception, settings: Settings) -> str:
    """Return one sentence on why there is no connection, other than an HTTP answer, and what to do about it."""
    if about_tls := explain_tls(error, settings.server_url, settings.tls_files):
        return about_tls
    if isinstance(error, ConnectionClosed):
        return f"The connection to the control plane is gone ({error})"
    if isinstance(error, TimeoutError):
        return f"{settings.server_url} did not answer within {HANDSHAKE_SECONDS} s: check the address and the network"
    if isinstance(error, WebSocketException):
        return f"{settings.server_url} is no control plane ({error}): check the address"
    return f"The control plane at {settings.server_url} cannot be reached ({error}): check the address and the network"


class Connection:
    """The one connection of this agent, made anew whenever it breaks."""

    def __init__(
        self, settings: Settings, credentials: Credentials, outbox: Outbox, receive: Callable[[str | bytes], None]
    ) -> None:
        self._settings = settings
        self._credentials = credentials
        self._outbox = outbox
        self._receive = receive
        self._confirmations: set[asyncio.Future[float]] = set()
        self._instance = secrets.token_hex(16)
        self.connected = False

    async def run(self) -> None:
        """Stay connected until cancelled; then close properly, within CLOSE_SECONDS. Raises TokenNotKeptError."""
        failures = 0
        while True:
            try:
                async with self._dial() as socket:
                    await self._keep_token(socket)
                    failures = 0
                    log.info("Connected to %s as %s.", self._settings.server_url, self._settings.hostname)
                    try:
                        await self._serve(socket)
                    finally:
                        await socket.close(wire.CloseCode.GOING_AWAY)
            except FAILURES as error:
                reason, bounds = self.explain(error), delay_bounds(failures, error)
                if refusals.is_status(error, 401) and self._credentials.turn_after_refusal():
                    log.warning("%s; enrolling again with the token that --enroll gives.", reason)
                    continue
            else:
                reason, bounds = "The control plane closed the connection", delay_bounds(failures)
            delay = random.uniform(*bounds)  # noqa: S311 - spreads load, guards nothing
            failures += 1
            log.warning("%s; trying again in %.1f s.", reason, delay)
            await asyncio.sleep(delay)

    async def enroll(self) -> None:
        """Connect once, for the token that is kept before this returns. Raises FAILURES, TokenNotKeptError."""
        async with self._dial() as socket:
            await self._keep_token(socket)

    def explain(self, error: Exception) -> str:
        """Return one sentence, without its full stop, on why an attempt failed and what to do about it."""
        if isinstance(error, InvalidStatus):
            return refusals.explain_refusal(error.response, self._settings, self._credentials)
        return str(error) if isinstance(error, NoTokenGivenError) else explain(error, self._settings)

    async def _keep_token(self, socket: ClientConnection) -> None:
        assert socket.response is not None  # noqa: S101 - the handshake is over
        await self._credentials.keep(socket.response.headers.get_all(wire.HEADER_AGENT_TOKEN))

    def _dial(self) -> connect:
        return connect(
            self._settings.server_url,
            ssl=context_for(self._settings.tls_files) if self._settings.server_url.startswith("wss:") else None,
            additional_headers=handshake_headers(self._settings, self._credentials, self._instance),
            compression=None,
            max_size=wire.MAX_MESSAGE_BYTES,
            open_timeout=HANDSHAKE_SECONDS,
            ping_interval=PING_SECONDS,
            ping_timeout=PING_SECONDS,
            close_timeout=CLOSE_SECONDS,
        )

    async def _serve(self, socket: ClientConnection) -> None:
        self._outbox.start_connection()
        self.connected = True
        writer = asyncio.create_task(self._write(socket))
        reader = asyncio.create_task(self._read(socket))
        try:
            await asyncio.wait({writer, reader}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.connected = False
            for task in (writer, reader):
                task.cancel()
            ended = await asyncio.gather(writer, reader, return_exceptions=True)
        for result in ended:
            if isinstance(result, Exception):
                raise result

    async def _read(self, socket: ClientConnection) -> None:
        async for frame in socket:
            self._receive(frame)

    async def _write(self, socket: ClientConnection) -> None:
        while True:
            outgoing = await self._outbox.next()
            try:
                await socket.send(outgoing.text)
                if outgoing.final_of is not None:
                    self._confirm_later(outgoing.final_of, asyncio.ensure_future(await socket.ping()))
            except BaseException:
                self._outbox.put_back(outgoing)
                raise

    def _confirm_later(self, job_id: str, pong: "asyncio.Future[float]") -> None:
        def confirm(done: "asyncio.Future[float]") -> None:
            self._confirmations.discard(done)
            if not done.cancelled() and done.exception() is None:
                self._outbox.delivered(job_id)

        self._confirmations.add(pong)
        pong.add_done_callback(confirm)


def handshake_headers(settings: Settings, credentials: Credentials, instance: str) -> dict[str, str]:
    """Return the headers of the upgrade request; `instance` is a random name of this process."""
    capabilities = [Capability.RESEND, Capability.STATUS_JSON]
    if settings.dry_run:
        capabilities.append(Capability.DRY_RUN)
    if credentials.source is not Source.GIVEN:
        capabilities.append(Capability.ENROLL)
    return {
        "Authorization": f"Bearer {credentials.token}",
        wire.HEADER_VERSION: __version__,
        wire.HEADER_ARCHITECTURE: host.architecture(),
        wire.HEADER_HOSTNAME: settings.hostname,
        wire.HEADER_CAPABILITIES: " ".join(capabilities),
        wire.HEADER_INSTANCE: instance,
    }
