"""How tests of settings set them, and what they are refused with.

Used by `tests/unit`. Nothing of the developer's own settings is seen.
"""

from pathlib import Path

import pytest

from control_plane.config import Settings, SettingsError, load_settings

NAMES = sorted(name.upper() for name in Settings.model_fields)


def leave_nothing_set(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Go to a directory without a `.env`, with no setting in the environment."""
    monkeypatch.chdir(directory)
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


def refusal(monkeypatch: pytest.MonkeyPatch, **environment: str) -> str:
    """Return the lines with which these settings are refused."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    return str(caught.value)
