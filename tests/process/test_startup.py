"""The real process: how it refuses to start, what it says when it does, and how it ends."""

import contextlib
import json
import re
import resource
import signal
import socket
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.server import ServerProcess

CANARY = "canary-kV3x9-Zp_41hTqLw8sRb"


def contents(directory: Path) -> bytes:
    """Return what all files in the directory hold."""
    return b"".join(path.read_bytes() for path in directory.rglob("*") if path.is_file())


def entries(directory: Path) -> list[str]:
    """Return the names in the directory."""
    return [path.name for path in directory.iterdir()]


async def refused(directory: Path, **env: str | None) -> str:
    """Start a server that cannot start; return its one line, after checking that it is one."""
    server = ServerProcess(directory, env)
    await server.launch()
    status = await server.wait()
    assert status == 2, server.output
    assert server.stdout == ""
    assert "Traceback" not in server.stderr
    assert server.stderr.count("\n") == 1, server.output
    return server.stderr


@pytest.fixture
async def fresh(tmp_path: Path) -> AsyncIterator[ServerProcess]:
    """A server at its very first start, with no secret configured."""
    async with ServerProcess(tmp_path, {"AGENT_SECRET_TOKEN": None, "API_TOKEN": None}) as server:
        yield server


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "http"),
        ("HOST", "no such host"),
        ("DATABASE_URL", f"postgresql://ops:{CANARY}@db/control"),
        ("API_TOKEN", f"{CANARY} with spaces"),
    ],
)
async def test_a_bad_value_ends_the_start_with_one_line_that_names_it(tmp_path: Path, name: str, value: str) -> None:
    line = await refused(tmp_path, **{name: value})
    assert line.startswith(name)
    assert CANARY not in line
    assert entries(tmp_path) == []


@pytest.mark.promise("no default secrets")
async def test_a_published_secret_is_refused_where_the_network_reaches(tmp_path: Path) -> None:
    line = await refused(tmp_path, HOST="0.0.0.0", AGENT_SECRET_TOKEN="default-secret-token")
    assert line.startswith("AGENT_SECRET_TOKEN is a value that anybody would guess")
    assert "default-secret-token" not in line


@pytest.mark.promise("closed")
async def test_an_open_api_is_refused_where_the_network_reaches(tmp_path: Path) -> None:
    assert (await refused(tmp_path, HOST="0.0.0.0", API_AUTH="none")).startswith("API_AUTH")


async def test_a_port_in_use_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        line = await refused(tmp_path, PORT=port, API_TOKEN=None)
    assert line.startswith(f"PORT {port} on 127.0.0.1 is in use")
    assert entries(tmp_path) == []


async def test_a_database_that_another_control_plane_runs_on_is_refused_until_that_one_is_gone(tmp_path: Path) -> None:
    async with ServerProcess(tmp_path) as first:
        assert "another control plane runs on" in await refused(tmp_path)
        await first.kill()
    async with ServerProcess(tmp_path) as second, second.client() as client:
        assert (await client.get("/ready")).status_code == 200


async def test_a_lock_that_cannot_be_had_ends_the_start_with_one_line(tmp_path: Path) -> None:
    (tmp_path / "control_plane.db.lock").mkdir()
    line = await refused(tmp_path)
    assert f"{tmp_path}/control_plane.db.lock" in line
    assert "cannot be used" in line


async def test_an_address_of_another_machine_is_refused(tmp_path: Path) -> None:
    assert "is not an address of this machine" in await refused(tmp_path, HOST="192.0.2.1")


async def test_a_database_that_is_none_ends_the_start_with_one_line(tmp_path: Path) -> None:
    (tmp_path / "control_plane.db").write_bytes(b"this is not a database" * 1000)
    assert "control_plane.db" in await refused(tmp_path)


async def test_a_database_of_a_newer_program_ends_the_start_with_one_line(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "control_plane.db")) as database, database:
        database.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
        database.execute("INSERT INTO alembic_version VALUES ('revision_of_tomorrow')")
    assert "newer" in await refused(tmp_path)


@pytest.mark.promise("no default secrets")
async def test_the_printed_commands_work_and_the_secrets_file_is_private(fresh: ServerProcess, tmp_path: Path) -> None:
    found = re.search(r'curl -H "Authorization: (Bearer \S+)" \\\n +(http\S+)', fresh.stdout)
    assert found, fresh.output
    async with fresh.client() as client:
        answer = await client.get(found[2], headers={"Authorization": found[1]})
        without = await client.get(found[2], headers={"Authorization": "Bearer wrong"})
    assert (answer.status_code, without.status_code) == (200, 401)
    assert f"--server {fresh.ws_url} " in fresh.stdout
    assert (tmp_path / "control_plane.secrets").stat().st_mode & 0o777 == 0o600


@pytest.mark.promise("no default secrets")
async def test_secrets_outlive_a_restart_and_only_the_first_start_shows_them(fresh: ServerProcess) -> None:
    first = fresh.stdout
    api_token, agent_token, url = fresh.api_token, fresh.agent_token, fresh.url
    assert api_token in first
    assert agent_token in first
    await fresh.restart()
    assert fresh.url == url
    async with fresh.client(api_token) as client:
        assert (await client.get("/agents")).status_code == 200
    second = fresh.stdout.removeprefix(first)
    assert "control_plane.secrets" in second
    assert api_token not in second
    assert agent_token not in second


@pytest.mark.promise("no default secrets")
async def test_the_api_token_is_in_no_file_and_neither_token_in_the_logs(fresh: ServerProcess, tmp_path: Path) -> None:
    async with fresh.client() as client:
        await client.get("/agents")
    await fresh.kill()
    everything = contents(tmp_path)
    assert fresh.agent_token.encode() in everything
    assert fresh.api_token.encode() not in everything
    assert fresh.api_token not in fresh.stderr
    assert fresh.agent_token not in fresh.stderr


async def test_tokens_are_not_logged_even_at_debug(tmp_path: Path) -> None:
    async with ServerProcess(tmp_path, {"LOG_LEVEL": "DEBUG"}) as server:
        async with server.client(CANARY) as client:
            upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
            key = {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}
            assert (await client.get("/ws", headers=upgrade | key)).status_code == 401
            assert (await client.get("/agents")).status_code == 401
        assert await server.terminate() == 0
        assert CANARY not in server.output
        assert server.api_token not in server.output


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_wanted_stop_ends_with_status_0_and_json_lines_only(tmp_path: Path, number: signal.Signals) -> None:
    async with ServerProcess(tmp_path) as server:
        assert await server.terminate(number) == 0, server.output
        events = [json.loads(line)["event"] for line in server.stderr.splitlines()]
        assert "listening" in events
        assert events[-1] == "stopped"


async def test_a_misspelt_name_in_the_file_is_warned_of_in_the_log(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("QUERY_TIMEOUT_SECOND=5\n")
    async with ServerProcess(tmp_path) as server:
        warnings = [json.loads(line) for line in server.stderr.splitlines() if '"warning"' in line]
        assert [event["event"] for event in warnings] == [
            "QUERY_TIMEOUT_SECOND in .env is not a setting of the control plane and is ignored; "
            "did you mean QUERY_TIMEOUT_SECONDS?"
        ]


async def test_the_limit_of_open_files_is_raised_to_the_most_allowed(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        async with ServerProcess(tmp_path) as server:
            assert resource.prlimit(server.pid, resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
