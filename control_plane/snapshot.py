"""The settings of one start, apart: what may be shown, and what is secret. `main` has starts compared by them.

A setting that is new in a version has nothing to be compared with and is not told as changed.
"""

from typing import Any

from control_plane.config import Settings
from control_plane.secrets import Secrets

_NEVER_SHOWN = {"agent_secret_token", "api_token", "database_url"}
"""A database's URL may hold a password."""


def visible_settings(settings: Settings) -> dict[str, Any]:
    """Return the settings that are no secrets, as plain JSON by the names of their variables."""
    return {name.upper(): value for name, value in settings.model_dump(mode="json", exclude=_NEVER_SHOWN).items()}


def secret_settings(settings: Settings, secrets: Secrets) -> dict[str, bytes]:
    """Return what stands for the others in memory, by their names. Not to be stored: see `operations.starting`.

    The tokens are those that count, wherever they come from; a missing one is empty.
    """
    return {
        "AGENT_SECRET_TOKEN": secrets.agent.digest if secrets.agent else b"",
        "API_TOKEN": secrets.api.digest if secrets.api else b"",
        "DATABASE_URL": settings.database_url.encode(),
    }
