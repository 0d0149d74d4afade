"""Which Host a request may ask for: `edge` has it checked before anything else of a request is looked at.

Probes of load balancers ask for an address, so `/health` and `/ready` take any: a strange site's page has a name.
"""

from starlette.types import Scope

from control_plane.core.errors import HostNotAllowedError
from control_plane.core.hosts import AllowedHosts, is_address

PROBES = {"/health", "/ready"}


def check_host(hosts: AllowedHosts, scope: Scope) -> None:
    """Return when the request's Host is one of `hosts`. Raises HostNotAllowedError."""
    asked = [value for name, value in scope["headers"] if name == b"host"]
    if not hosts.allow(asked) and not (scope["path"] in PROBES and is_address(asked)):
        raise HostNotAllowedError(
            "The Host of this request is no name of this control plane: use one that is, or add this one to "
            "ALLOWED_HOSTS."
        )
