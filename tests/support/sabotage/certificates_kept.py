"""A server that shows the certificate it started with until it is restarted."""

from control_plane.tls import Tls


def apply() -> None:
    """Read no file again."""

    async def look(_self: Tls) -> None:
        """See nothing."""

    Tls.look = look  # type: ignore[assignment, method-assign]
