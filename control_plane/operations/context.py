"""ControlPlane: what operations work with, put together once by `main` and handed to every one of them."""

from collections import Counter
from dataclasses import dataclass, field

from control_plane.bus.base import Bus
from control_plane.checking.base import Checker
from control_plane.core.metrics import Metrics
from control_plane.core.protocol import CommandType
from control_plane.fleet.cooldown import Cooldowns
from control_plane.fleet.dispatcher import Dispatcher
from control_plane.fleet.health import HealthChecks
from control_plane.fleet.manager import ConnectionManager
from control_plane.fleet.recorder import Recorder
from control_plane.operations.grace import Grace
from control_plane.operations.inbox import Inboxes
from control_plane.operations.token_book import TokenBook
from control_plane.store.store import Store


@dataclass(frozen=True)
class Limits:
    """How long things may take, in seconds, and how much may wait."""

    deploy_seconds: int = 900
    stop_seconds: int = 600
    query_seconds: int = 60
    """STATUS and HEALTH_CHECK."""
    queue_seconds: int = 86_400
    """How long a deploy or a stop may wait to be sent."""
    max_queued: int = 1000
    """Unsent jobs an agent may have."""
    retention_days: int = 90
    """How long what is over stays; 0: for ever."""

    def execution_seconds(self, kind: CommandType) -> int:
        """Return how long a command may run when the request does not say."""
        if kind is CommandType.DEPLOY_COMPOSE:
            return self.deploy_seconds
        return self.stop_seconds if kind is CommandType.STOP_COMPOSE else self.query_seconds


@dataclass
class ControlPlane:
    """The parts of a running control plane.

    `draining` is set once, when it begins to shut down; `closing` later, when it begins to close sockets and to
    answer whoever waits.
    """

    store: Store
    bus: Bus
    manager: ConnectionManager
    dispatcher: Dispatcher
    recorder: Recorder
    inboxes: Inboxes
    checker: Checker
    health: HealthChecks
    limits: Limits
    metrics: Metrics
    grace: Grace
    token_book: TokenBook
    draining: bool = False
    closing: bool = False
    cooldowns: Cooldowns = field(default_factory=Cooldowns)
    being_placed: Counter[int] = field(default_factory=Counter)
    """Agent id → deploys on their way into the store, so that new projects posted together spread out."""
