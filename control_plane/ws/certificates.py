"""What certificate an agent must show where TLS_CLIENT_CA is set: one of its own, with its hostname on it.

`endpoint` asks once the token was found valid. TLS itself has seen that the certificate is signed by that authority and
in time, and that the agent has its key. Invariant: names are compared as they are; no wildcard stands for a hostname.
"""

from typing import Any

from starlette.websockets import WebSocket

from control_plane.ws.handshake import RefusedError
from control_plane.ws.socket import peer_certificate


def refuse_other_certificates(websocket: WebSocket, hostname: str) -> None:
    """Return when no certificate is needed, or the agent has shown its own. Raises RefusedError."""
    if not websocket.app.state.agents_need_certificates:
        return
    certificate = peer_certificate(websocket)
    if not certificate:
        raise RefusedError(
            403,
            "certificate_required",
            "This control plane asks agents for a certificate: connect with one that its TLS_CLIENT_CA has signed.",
        )
    if hostname not in names_of(certificate):
        raise RefusedError(
            403,
            "certificate_mismatch",
            "This agent's certificate is for another hostname: its common name or one of its DNS names must be the "
            "agent's hostname.",
        )


def names_of(certificate: dict[str, Any]) -> set[str]:
    """Return common names and DNS names of a certificate, as Python's ssl tells it."""
    common = {value for part in certificate.get("subject", ()) for key, value in part if key == "commonName"}
    return common | {value for kind, value in certificate.get("subjectAltName", ()) if kind == "DNS"}
