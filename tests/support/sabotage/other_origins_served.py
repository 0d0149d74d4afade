"""An open API that takes whatever a browser sends it, as most do: any site's page may change things."""

from typing import Any

from control_plane.api import auth

AUTH: Any = auth


def apply() -> None:
    """Refuse no origin."""
    AUTH.refuse_other_origins = lambda _headers: None
