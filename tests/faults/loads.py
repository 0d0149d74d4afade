"""Lets the loads of `benchmarks` fall on a server of the tests: storms, floods, agents that do not read."""

from urllib.parse import urlsplit

import psutil

from benchmarks.deploys import Target
from benchmarks.servers import Server
from tests.support.server import ServerProcess


def measured(server: ServerProcess) -> Server:
    """Return a running server as benchmarks know it."""
    at = urlsplit(server.url)
    target = Target(str(at.hostname), int(at.port or 0), server.api_token, server.agent_token)
    return Server("server", target, server.database_path, psutil.Process(server.pid))
