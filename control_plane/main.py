"""The composition root: puts the parts together into an app, and starts and ends them. Nothing else."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import structlog
from fastapi import FastAPI

from control_plane import __version__
from control_plane.api import (
    routes_agents,
    routes_audit,
    routes_deployments,
    routes_events,
    routes_fleet,
    routes_install,
    routes_jobs,
    routes_metrics,
    routes_projects,
    routes_system,
    routes_tokens,
)
from control_plane.api.auth import DirectRoute
from control_plane.api.docs import install_docs
from control_plane.api.edge import edged, install_edge
from control_plane.api.problem_types import all_problems
from control_plane.api.shortcuts import AppWithShortcuts
from control_plane.bus.memory import MemoryBus
from control_plane.checking.base import Checker
from control_plane.checking.threads import ThreadChecker
from control_plane.config import Settings
from control_plane.core import protocol
from control_plane.core.failure_limits import FailureLimits
from control_plane.core.hosts import AllowedHosts
from control_plane.core.metrics import Metrics
from control_plane.core.proxies import TrustedProxies
from control_plane.core.strangers import STRANGERS, Strangers
from control_plane.fleet.dispatcher import Dispatcher
from control_plane.fleet.health import HealthChecks
from control_plane.fleet.manager import ConnectionManager
from control_plane.fleet.recorder import Recorder
from control_plane.loops import acknowledgements, deadlines, disk, health_checks, presence, retention, tokens
from control_plane.loops.supervisor import Loop, Supervisor
from control_plane.operations.context import ControlPlane, Limits
from control_plane.operations.grace import MOMENT_SECONDS, Grace
from control_plane.operations.inbox import Inboxes
from control_plane.operations.starting import note_start, note_stop
from control_plane.operations.token_book import TokenBook
from control_plane.secrets import Secrets
from control_plane.snapshot import secret_settings, visible_settings
from control_plane.store.database import StorageBrokenError
from control_plane.store.errands import errands_directory
from control_plane.store.store import Store
from control_plane.tls import LOOK_SECONDS, Tls
from control_plane.ws import endpoint

EXIT_STORAGE_BROKEN = 70
"""EX_SOFTWARE of sysexits.h: a service manager starts the program again, on a disk that works."""

log = structlog.get_logger()

DESCRIPTION = """\
Deploys Docker Compose projects to a fleet of agents, and tells truthfully whether they run.

Press **Authorize** and give your API token; then every route below can be tried here.
"""


def create_app(
    settings: Settings,
    secrets: Secrets,
    *,
    start_checker: Callable[[], Checker] = ThreadChecker,
    tls: Tls | None = None,
) -> FastAPI:
    """Return the app for these settings. Its lifespan opens the database and raises StartupError if it cannot."""
    app = AppWithShortcuts(
        title="InstaDeploy control plane",
        description=DESCRIPTION,
        version=__version__,
        lifespan=partial(_lifespan, settings=settings, secrets=secrets, start_checker=start_checker, tls=tls),
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # clients do not follow them with a body, and would be told nothing
        # Its telemetry asks the environment anew at every request whether anybody wants it.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    proxies = TrustedProxies(settings.trusted_proxies)
    app.trusted_proxies = proxies if settings.trusted_proxies else None
    app.state.api_tokens = secrets.api
    app.state.agent_token = secrets.agent
    app.state.agents_need_certificates = tls is not None and tls.asks_clients
    app.state.allowed_origins = settings.allowed_origins
    hosts = app.state.allowed_hosts = AllowedHosts(settings.served_hosts) if settings.served_hosts else None
    metrics = app.state.metrics = Metrics(__version__)
    app.state.failure_limits = FailureLimits(settings.max_failed_tokens_per_minute, partial(_note_limited, metrics))
    app.state.strangers = Strangers(
        settings.max_unauthenticated_per_address, partial(_note_turned_away, metrics), proxies.trust
    )
    for problem in all_problems():
        metrics.expect_problem(*problem)
    # Not include_router: it would match each request twice over, at a tenth of a deploy's cost. Hottest first.
    app.router.routes.extend(routes_deployments.hot_router.routes)
    for routes in (
        routes_deployments,
        routes_jobs,
        routes_projects,
        routes_agents,
        routes_fleet,
        routes_tokens,
        routes_events,
        routes_audit,
        routes_metrics,
        routes_system,
        routes_install,
    ):
        app.router.routes.extend(routes.router.routes)
    install_docs(app)
    bounds: dict[str, Any] = {
        "max_body_bytes": settings.max_body_bytes,
        "on_answer": metrics.http_answered,
        "hosts": hosts,
    }
    install_edge(app, **bounds)
    app.add_shortcut("websocket", protocol.PATH, endpoint.serve_agent)
    for route in routes_deployments.hot_router.routes:
        if isinstance(route, DirectRoute):
            app.add_shortcut("http", route.path, edged(route.serve_plain, **bounds))
    return app


def _note_limited(metrics: Metrics, address: str) -> None:
    metrics.addresses_limited.inc()
    log.warning("address_limited", address=address, reason="too many requests without a valid token")


def _note_turned_away(metrics: Metrics, address: str, first: bool) -> None:
    metrics.connections_turned_away.inc()
    if first:
        log.warning("connections_turned_away", address=address, reason="too many connections without a valid token")


@asynccontextmanager
async def _lifespan(
    app: FastAPI, *, settings: Settings, secrets: Secrets, start_checker: Callable[[], Checker], tls: Tls | None
) -> AsyncIterator[dict[str, Any]]:
    plane = await _open(settings, app.state.metrics, start_checker)
    await plane.token_book.refresh()
    await note_start(plane.store, __version__, visible_settings(settings), secret_settings(settings, secrets))
    loops = [
        Loop("deadlines", deadlines.INTERVAL_SECONDS, partial(deadlines.run_once, plane)),
        Loop("acknowledgements", acknowledgements.INTERVAL_SECONDS, partial(acknowledgements.run_once, plane)),
        Loop("disk", disk.INTERVAL_SECONDS, partial(disk.run_once, plane)),
        Loop(
            "tokens",
            tokens.INTERVAL_SECONDS,
            partial(tokens.run_once, plane, errands_directory(settings.database_path)),
        ),
        Loop("presence", presence.INTERVAL_SECONDS, partial(presence.run_once, plane)),
        Loop(
            "retention",
            retention.INTERVAL_SECONDS,
            partial(retention.run_once, plane),
            first_after_seconds=retention.FIRST_AFTER_SECONDS,
        ),
    ]
    if settings.health_check_interval_seconds:
        loops.append(Loop("health_checks", health_checks.INTERVAL_SECONDS, partial(health_checks.run_once, plane)))
    if tls is not None:
        app.state.metrics.certificate_ends_at.set_function(lambda: tls.ends_at)
        loops.append(Loop("certificate", LOOK_SECONDS, tls.look))
    supervisor = Supervisor(loops, asyncio.get_running_loop().time)
    app.state.control_plane = plane
    app.state.supervisor = supervisor
    supervisor.start()
    try:
        yield {STRANGERS: app.state.strangers}
    finally:
        plane.draining = plane.closing = True
        plane.grace.begin()
        await supervisor.stop()
        await _close(plane)


async def _open(settings: Settings, metrics: Metrics, start_checker: Callable[[], Checker]) -> ControlPlane:
    loop = asyncio.get_running_loop()
    store = await asyncio.to_thread(Store, settings.database_url, _end_process, loop, metrics.committed)
    bus = MemoryBus()
    recorder = Recorder(store, bus, metrics)
    dispatcher = Dispatcher(store, recorder)
    manager = ConnectionManager(store)
    return ControlPlane(
        store=store,
        bus=bus,
        manager=manager,
        dispatcher=dispatcher,
        recorder=recorder,
        inboxes=Inboxes(recorder.record),
        checker=start_checker(),
        metrics=metrics,
        grace=Grace(settings.shutdown_grace_seconds),
        token_book=TokenBook(store, manager),
        health=HealthChecks(dispatcher, metrics, settings.health_check_interval_seconds),
        limits=Limits(
            deploy_seconds=settings.deploy_timeout_seconds,
            stop_seconds=settings.stop_timeout_seconds,
            query_seconds=settings.query_timeout_seconds,
            queue_seconds=settings.queue_timeout_seconds,
            max_queued=settings.max_queued_jobs_per_agent,
            retention_days=settings.retention_days,
        ),
    )


async def _close(plane: ControlPlane) -> None:
    await plane.grace.allows(plane.dispatcher.close(), at_least=MOMENT_SECONDS)
    if not await plane.grace.allows(plane.inboxes.drain(), at_least=MOMENT_SECONDS):
        plane.inboxes.give_up()
    await plane.checker.close()
    await note_stop(plane.store, __version__)
    await plane.store.close()


def _end_process(error: StorageBrokenError) -> None:
    """End at once, in whatever thread: what would be acknowledged from here on may not be on the disk."""
    sys.stderr.write(f"The disk failed under the database ({error}); ending so that nothing false is acknowledged.\n")
    sys.stderr.flush()
    os._exit(EXIT_STORAGE_BROKEN)
