"""ConnectionManager: which agents are connected, and who may take a hostname.

A hostname is an agent's identity, and one live socket has it. A newcomer under a taken hostname is refused
while the incumbent answers a ping; otherwise it takes its place, and the late end of the replaced socket
touches nothing.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from weakref import WeakValueDictionary

import structlog
from uuid_utils import uuid4

from control_plane.core.audit import AuditEntry
from control_plane.core.errors import AgentNotConnectedError, HostnameTakenError
from control_plane.core.protocol import CloseCode
from control_plane.fleet.refusals import RefusedHostnames
from control_plane.fleet.session import AgentSession, Identity, Socket
from control_plane.store import agents
from control_plane.store.enrollment import Claimed, check_arrival
from control_plane.store.store import Store

CHANGES_AT_ONCE = 250
"""Comings and goings that may wait for the store together: when a whole fleet comes or goes, a deploy waits for no
more of them than this, and commits are still few."""
INCUMBENT_PING_SECONDS = 3
"""An agent gives its handshake 10 s; three of them leave room for the rest."""

log = structlog.get_logger()


class ConnectionManager:
    """Owns the live sessions of this process."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._by_id: dict[int, AgentSession] = {}
        self._by_place: dict[tuple[int, str], AgentSession] = {}
        self._refusals = RefusedHostnames(store)
        self._changes = asyncio.Semaphore(CHANGES_AT_ONCE)
        self._doors: WeakValueDictionary[tuple[int, str], asyncio.Lock] = WeakValueDictionary()

    async def connect(
        self,
        identity: Identity,
        socket: Socket,
        accept: Callable[[], Awaitable[None]],
        audit: AuditEntry | None = None,
    ) -> tuple[AgentSession, bool]:
        """Admit an agent: settle its hostname, store its row, then `accept()` the socket and register it.

        Returns the session, and whether jobs of the agent are queued or in flight. Raises HostnameTakenError, and
        what `agents.arrive` says. `audit`: the entry of one that enrols, to be written with its row.
        """
        door = self._doors.setdefault(identity.place, asyncio.Lock())
        async with door:
            replaced = await self._clear_hostname(identity)
            connection_id = uuid4().hex
            arrival = _arrival(identity, connection_id, replaced)
            try:
                async with self._changes:
                    arrived = await self._store.write(agents.arrive, arrival, audit)
            except BaseException:
                if replaced is not None:
                    await self._depart(replaced)
                raise
            session = AgentSession(arrived.agent_id, connection_id, identity, socket, token_id=arrived.token_id)
            self._by_id[arrived.agent_id] = session
            self._by_place[identity.place] = session
            try:
                await accept()
            except BaseException:
                await self.disconnect(session)
                raise
        log.info("agent_connected", agent_id=session.agent_id, hostname=identity.hostname, address=identity.address)
        return session, arrived.has_work

    async def disconnect(self, session: AgentSession) -> bool:
        """End a session: forget it and mark its agent offline, unless another socket has taken its place.

        Returns whether it was still the agent's session. May be called twice.
        """
        session.closed = True
        if self._by_id.get(session.agent_id) is not session:
            return False
        del self._by_id[session.agent_id]
        self._by_place.pop(session.identity.place, None)
        log.info("agent_disconnected", agent_id=session.agent_id, hostname=session.identity.hostname)
        await self._depart(session)
        return True

    async def _depart(self, session: AgentSession) -> None:
        departure = agents.Departure(session.agent_id, session.connection_id, datetime.now(UTC))
        async with self._changes:
            await self._store.write(agents.depart, departure)

    async def send_command(self, agent_id: int, text: str) -> bool:
        """Write one encoded command to an agent; see AgentSession.send. Raises AgentNotConnectedError."""
        session = self._by_id.get(agent_id)
        if session is None:
            raise AgentNotConnectedError(f"Agent {agent_id} is not connected.")
        return await session.send(text)

    def is_connected(self, agent_id: int) -> bool:
        """Whether the agent's socket is up in this process."""
        return agent_id in self._by_id

    def find_session(self, agent_id: int) -> AgentSession | None:
        """Return the agent's session, or None while it is not connected."""
        return self._by_id.get(agent_id)

    def get_connected_agents(self) -> list[AgentSession]:
        """Return the sessions of all connected agents."""
        return list(self._by_id.values())

    @property
    def connected_count(self) -> int:
        """How many agents are connected."""
        return len(self._by_id)

    async def _clear_hostname(self, newcomer: Identity) -> AgentSession | None:
        """Return once the hostname is free for the newcomer: who had to go, None if nobody had it.

        Raises HostnameTakenError. Nobody has to go for one that may not come in: raises what `check_arrival` does.
        """
        incumbent = self._by_place.get(newcomer.place)
        if incumbent is None:
            return None
        if newcomer.enrollment is not None or newcomer.token_id != incumbent.token_id:
            # Who comes with what the incumbent came with is judged with its row: a whole fleet may come back at once.
            claim = Claimed(newcomer.place, newcomer.token_id, newcomer.enrollment, datetime.now(UTC))
            await self._store.read(check_arrival, claim)
        same_process = bool(newcomer.instance) and newcomer.instance == incumbent.identity.instance
        if not same_process and await incumbent.socket.ping(INCUMBENT_PING_SECONDS):
            log.warning(
                "hostname_taken",
                hostname=newcomer.hostname,
                incumbent_address=incumbent.identity.address,
                newcomer_address=newcomer.address,
            )
            await self._refusals.note(incumbent, newcomer)
            raise HostnameTakenError(
                f"An agent named '{newcomer.hostname}' is connected from {incumbent.identity.address} and alive: "
                "give this one another hostname (AGENT_HOSTNAME), or stop the other."
            )
        log.info("agent_replaced", agent_id=incumbent.agent_id, hostname=newcomer.hostname)
        incumbent.closed = True
        self._by_id.pop(incumbent.agent_id, None)
        self._by_place.pop(newcomer.place, None)
        await incumbent.socket.close(CloseCode.REPLACED, "replaced by a newer connection")
        incumbent.socket.abort()
        return incumbent


def _arrival(identity: Identity, connection_id: str, replaced: AgentSession | None) -> agents.Arrival:
    return agents.Arrival(
        organization_id=identity.organization_id,
        hostname=identity.hostname,
        ip_address=identity.address,
        version=identity.version,
        architecture=identity.architecture,
        capabilities=" ".join(sorted(identity.capabilities)),
        instance=identity.instance,
        connection_id=connection_id,
        at=datetime.now(UTC),
        replaces=None if replaced is None else replaced.identity.address,
        token_id=identity.token_id,
        enrollment=identity.enrollment,
    )
