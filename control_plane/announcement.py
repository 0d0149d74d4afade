"""What the console says at a start about reaching the server: commands that work as they are, on 80 columns.

Written to stdout by `serve.main`, never to the logs: this is the only place that shows a token in clear, and
only one that this very start made.
"""

import shlex
import socket
import textwrap
from pathlib import Path

from control_plane import __version__
from control_plane.core import protocol
from control_plane.secrets import NewSecrets

WIDTH = 80
_ANY_ADDRESS = {"0.0.0.0", "::"}  # noqa: S104 - compared with, not bound
_CONTAINER_MARKS = (Path("/.dockerenv"), Path("/run/.containerenv"))


def http_url(host: str, port: int, *, secure: bool = False) -> str:
    """Return the base URL of a server bound to `host`, for people and programs to use; `secure`: it speaks TLS."""
    name = _reachable(host)
    scheme = "https" if secure else "http"
    return f"{scheme}://[{name}]:{port}" if ":" in name else f"{scheme}://{name}:{port}"


def announcement(base_url: str, told: NewSecrets) -> str:
    """Return the text for the console: with commands if this start made a secret, else where secrets are."""
    parts = [f"InstaDeploy control plane {__version__} at {base_url}"]
    if told.agent_token or told.api_token:
        parts += _first_commands(base_url, told)
    elif told.agent_kept:
        parts.append(_wrapped(f"The secret for agents is the agent_secret_token in {told.file}."))
    if told.api_kept and not told.api_token:
        parts.append(
            _wrapped(
                "The API token was shown when it was made, and only its hash is kept. For a new one delete the "
                f"line api_token_sha256 from {told.file} and restart, or set API_TOKEN."
            )
        )
    return "\n" + "\n\n".join(parts) + "\n\n"


def _first_commands(base_url: str, told: NewSecrets) -> list[str]:
    websocket_url = base_url.replace("http", "ws", 1) + protocol.PATH
    token = told.agent_token or (_from_file(told) if told.agent_kept else '"$AGENT_SECRET_TOKEN"')
    parts = [
        "Connect an agent, on each host where projects shall run:",
        f"  python -m agent \\\n    --server {websocket_url} \\\n    --token {token}",
    ]
    if told.agent_kept:
        parts.append(_wrapped(f"That secret is kept in {told.file}."))
    if told.api_token:
        parts.append("Use the API, with a token that is shown only this once:")
        parts.append(f'  curl -H "Authorization: Bearer {told.api_token}" \\\n    {base_url}/agents')
    elif not told.api_kept:
        parts.append(f"The API is at {base_url}/docs.")
    return parts


def _from_file(told: NewSecrets) -> str:
    return f"\"$(sed -n 's/^agent_secret_token=//p' {shlex.quote(str(told.file))})\""


def _reachable(host: str) -> str:
    """Return a name for `host`; for every address, this machine's own name if that leads anywhere."""
    if host not in _ANY_ADDRESS:
        return host
    # Outside a container its name means nothing, while its port is published on the host's loopback.
    if any(mark.exists() for mark in _CONTAINER_MARKS):
        return "127.0.0.1"
    name = socket.gethostname()
    try:
        socket.getaddrinfo(name, None)
    except (OSError, UnicodeError):
        return "127.0.0.1"
    return name


def _wrapped(text: str) -> str:
    return textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False)
