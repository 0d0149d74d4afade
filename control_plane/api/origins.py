"""Which web pages may use the REST API where no token tells them apart: only the control plane's own.

`auth.check_token` asks with API_AUTH=none. A browser sends a page's requests to any address, loopback too, and only
keeps the answers from it: a form of any web site could stop a developer's projects.
"""

from starlette.datastructures import Headers

from control_plane.core.errors import OriginNotAllowedError

_OWN = {"same-origin", "none"}
"""A page from here, or the user: an address typed in, a bookmark."""


def refuse_other_origins(headers: Headers) -> None:
    """Return unless a browser says that the request is a page's of another origin. Raises OriginNotAllowedError.

    Every browser since 2023 sends Sec-Fetch-Site (Fetch Metadata), older ones Origin with all but plain GETs
    (RFC 6454); programs send neither.
    """
    site = headers.get("sec-fetch-site")
    if site is not None:
        own = site in _OWN
    else:
        origin = headers.get("origin")
        own = origin is None or origin.partition("://")[2] == headers.get("host")
    if not own:
        raise OriginNotAllowedError(
            "Web pages of other origins may not use this API: open the control plane's own, or call it from a program."
        )
