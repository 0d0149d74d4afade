"""The announcement: its commands work as they are, fit the console, and show no token but a new one."""

import re
import socket
import subprocess
from pathlib import Path

import pytest
from pydantic import SecretStr

from control_plane import announcement as announcing
from control_plane.announcement import announcement, http_url
from control_plane.config import Settings
from control_plane.secrets import NewSecrets, resolve_secrets

AGENT = "kV3x9-Zp_41hTqLw8sRb"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        database_url=f"sqlite:///{tmp_path}/control_plane.db",
        agent_secret_token=None,
        api_token=None,
        api_auth="token",
    )


def made(settings: Settings) -> NewSecrets:
    _, told = resolve_secrets(settings)
    assert told is not None
    return told


def test_the_first_announcement_has_commands_that_fit_the_console(settings: Settings) -> None:
    told = made(settings)
    text = announcement("http://host.example:8000", told)
    assert f"python -m agent \\\n    --server ws://host.example:8000/ws \\\n    --token {told.agent_token}\n" in text
    assert f'curl -H "Authorization: Bearer {told.api_token}" \\\n    http://host.example:8000/agents\n' in text
    assert str(told.file) in text
    assert max(map(len, text.splitlines())) <= max(80, len(str(told.file)) + 1)


def test_a_later_announcement_tells_where_the_secrets_are_and_no_token(settings: Settings) -> None:
    first = made(settings)
    told = made(settings)
    text = announcement("http://host.example:8000", told)
    assert first.agent_token is not None
    assert first.agent_token not in text
    assert str(told.file) in text
    assert "delete the line" in " ".join(text.split())


def test_the_announcement_does_not_show_configured_secrets(settings: Settings) -> None:
    told = made(settings.model_copy(update={"agent_secret_token": SecretStr(AGENT)}))
    text = announcement("http://host.example:8000", told)
    assert AGENT not in text
    assert '--token "$AGENT_SECRET_TOKEN"' in text


@pytest.mark.parametrize(
    ("host", "url"),
    [("127.0.0.1", "http://127.0.0.1:80"), ("::1", "http://[::1]:80"), ("deploy.example", "http://deploy.example:80")],
)
def test_a_host_that_was_named_is_the_one_announced(host: str, url: str) -> None:
    assert http_url(host, 80) == url


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_for_every_address_one_is_announced_that_can_be_dialled(host: str) -> None:
    assert http_url(host, 80) not in {"http://0.0.0.0:80", "http://[::]:80"}


def test_for_every_address_a_machine_announces_its_name_if_that_leads_anywhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(announcing, "_CONTAINER_MARKS", ())
    name = socket.gethostname()
    try:
        socket.getaddrinfo(name, None)
    except OSError:
        name = "127.0.0.1"
    assert http_url("0.0.0.0", 80) == f"http://{name}:80"


def test_in_a_container_the_loopback_is_announced_where_its_port_is_published(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(announcing, "_CONTAINER_MARKS", (tmp_path,))
    assert http_url("0.0.0.0", 80) == "http://127.0.0.1:80"


def test_with_a_new_api_token_the_agents_command_takes_its_secret_from_the_file(tmp_path: Path) -> None:
    directory = tmp_path / "it's here"
    directory.mkdir()
    settings = Settings(database_url=f"sqlite:///{directory}/control_plane.db", api_auth="none")
    first = made(settings)
    second = made(settings.model_copy(update={"api_auth": "token"}))
    text = announcement("http://host.example:8000", second)
    assert str(second.api_token) in text
    assert str(first.agent_token) not in text
    found = re.search(r"--token (.*)\n", text)
    assert found
    shown = subprocess.run(["sh", "-c", f"printf %s {found[1]}"], capture_output=True, text=True, check=True)
    assert shown.stdout == first.agent_token


def test_with_an_open_api_no_token_is_spoken_of(settings: Settings) -> None:
    told = made(settings.model_copy(update={"api_auth": "none"}))
    text = announcement("http://host.example:8000", told)
    assert "http://host.example:8000/docs" in text
    assert "Bearer" not in text
