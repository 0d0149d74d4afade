"""The server speaks TLS by itself: to callers and agents, with certificates that change while it runs."""

import asyncio
import os
import signal
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.certificates import Authority, Pair
from tests.support.raw_socket import RawSocket, RefusalError
from tests.support.server import ServerProcess

PATIENCE_SECONDS = 20


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@asynccontextmanager
async def serving(authority: Authority, **options: object) -> AsyncIterator[tuple[ServerProcess, Pair]]:
    """A server with a certificate, and that certificate's files."""
    pair = authority.sign("first", file="server")
    settings = {**pair.settings, **options.pop("env", {})}  # type: ignore[dict-item]
    async with ServerProcess(env=settings, trust=authority.client(), **options) as server:  # type: ignore[arg-type]
        yield server, pair


async def shown(server: ServerProcess, authority: Authority) -> str:
    """Return the common name of the certificate that a new connection is shown."""
    at = urlsplit(server.url)
    _, writer = await asyncio.open_connection(at.hostname, at.port, ssl=authority.client())
    try:
        return str(dict(part[0] for part in writer.get_extra_info("peercert")["subject"])["commonName"])
    finally:
        writer.close()
        await writer.wait_closed()


async def until_shown(server: ServerProcess, authority: Authority, name: str, within: float = PATIENCE_SECONDS) -> None:
    async with asyncio.timeout(within):
        while await shown(server, authority) != name:
            pass


async def until_end(server: ServerProcess, said: bytes) -> bytes:
    """Say something that is not what the port speaks; return what comes until the connection ends."""
    at = urlsplit(server.url)
    reader, writer = await asyncio.open_connection(at.hostname, at.port)
    writer.write(said)
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def test_callers_and_agents_are_served_over_tls_and_a_stop_is_clean(authority: Authority) -> None:
    tokens = {"API_TOKEN": None, "AGENT_SECRET_TOKEN": None}
    async with serving(authority, env=tokens) as (server, _), server.client() as client:
        assert server.url.startswith("https://127.0.0.1:")
        assert f"--server {server.ws_url} " in server.stdout
        assert f"{server.url}/agents\n" in server.stdout
        async with await RawSocket.open(server.ws_url, server.agent_token, "host-1", tls=authority.client()) as agent:
            [row] = (await client.get("/agents")).json()["agents"]
            assert (row["status"], row["ip_address"]) == ("online", "127.0.0.1")
            metrics = (await client.get("/metrics")).text
            assert "instadeploy_certificate_ends_timestamp_seconds 1." in metrics
            stopping = asyncio.create_task(server.terminate())
            assert (await agent.closed())[0] == 1012
            assert await stopping == 0
    assert "Traceback" not in server.output


async def test_what_is_no_tls_is_cut_off_and_fills_no_log(authority: Authority) -> None:
    async with serving(authority) as (server, _):
        before = server.stderr
        for said in (
            b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n",
            b"\x00" * 100,
            b"\x16\x03\x01\xff\xff" + b"x" * 70_000,
        ):
            assert not (await until_end(server, said)).startswith(b"HTTP")
        assert await shown(server, authority) == "first"
        assert server.stderr == before


async def test_tls_on_a_port_without_it_is_answered_and_does_not_hang() -> None:
    async with ServerProcess() as server:
        at = urlsplit(server.url)
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.wait_for(
                asyncio.open_connection(at.hostname, at.port, ssl=ssl.create_default_context()), PATIENCE_SECONDS
            )


async def test_old_versions_of_tls_are_refused(authority: Authority) -> None:
    async with serving(authority) as (server, _):
        at = urlsplit(server.url)
        old = authority.client()
        old.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.open_connection(at.hostname, at.port, ssl=old)
        modern = authority.client()
        modern.maximum_version = ssl.TLSVersion.TLSv1_2
        _, writer = await asyncio.open_connection(at.hostname, at.port, ssl=modern)
        assert writer.get_extra_info("cipher")[0].startswith("ECDHE-")
        writer.close()
        await writer.wait_closed()


async def check_renewed_certificate_is_shown(server: ServerProcess, pair: Pair, authority: Authority) -> None:
    """Assert that new files are taken, and an agent that was connected with the old ones stays."""
    async with await RawSocket.open(server.ws_url, server.agent_token, "host-1", tls=authority.client()) as agent:
        authority.sign("second").put_over(pair)
        await until_shown(server, authority, "second", within=10)
        async with server.client() as client:
            answer = await client.get("/projects/web/status", params={"wait": 0})
            assert answer.status_code == 404
            body = {"project_name": "web", "compose_file": "services: {web: {image: nginx}}"}
            assert (await client.post("/deploy", json=body)).status_code == 200
        assert (await agent.command())["type"] == "DEPLOY_COMPOSE"


@pytest.mark.promise("certificates")
async def test_a_renewed_certificate_is_taken_by_itself_and_drops_no_agent(authority: Authority) -> None:
    async with serving(authority) as (server, pair):
        await check_renewed_certificate_is_shown(server, pair, authority)


@pytest.mark.control("certificates")
async def test_a_server_that_keeps_its_certificate_would_be_found(authority: Authority) -> None:
    async with serving(authority, sabotage="certificates_kept") as (server, pair):
        with pytest.raises(TimeoutError):
            await check_renewed_certificate_is_shown(server, pair, authority)


@pytest.mark.promise("certificates")
async def test_a_bad_certificate_is_told_and_the_old_one_shown_on(authority: Authority) -> None:
    async with serving(authority) as (server, pair):
        pair.certificate.write_bytes(authority.sign("second").certificate.read_bytes())
        await server.logged("certificate_not_taken")
        assert f"{pair.key} is not the key of the certificate in {pair.certificate}" in server.stderr
        assert await shown(server, authority) == "first"
        async with server.client() as client:
            assert (await client.get("/ready")).status_code == 200


async def test_sighup_has_the_files_read_again(authority: Authority) -> None:
    async with serving(authority) as (server, _):
        os.kill(server.pid, signal.SIGHUP)
        await server.logged("certificate_taken")
        assert await shown(server, authority) == "first"


async def test_a_certificate_that_ends_soon_is_told_at_the_start(authority: Authority) -> None:
    pair = authority.sign("short", days=5)
    async with ServerProcess(env=pair.settings, trust=authority.client()) as server:
        await server.logged("certificate_ends")
        assert '"days_left": 4' in server.stderr


async def test_files_that_cannot_be_used_end_the_start_with_one_line(authority: Authority, tmp_path: Path) -> None:
    one, other = authority.sign("one"), authority.sign("other")
    ended = authority.sign("ended", days=-1)
    place = tmp_path / "server"
    place.mkdir()
    for settings, line in (
        ({"TLS_CERTFILE": str(one.certificate)}, "TLS_CERTFILE is set, and TLS needs both"),
        (Pair(one.certificate, other.key).settings, f"TLS_KEYFILE: {other.key} is not the key"),
        (ended.settings, f"TLS_CERTFILE: the certificate in {ended.certificate} ended"),
    ):
        server = ServerProcess(place, settings)
        await server.launch()
        assert await server.wait() == 2
        assert server.stderr.startswith(line)
        assert server.stderr.count("\n") == 1
        assert server.stdout == ""


async def dial(server: ServerProcess, tls: ssl.SSLContext, hostname: str, token: str | None = None) -> int | str:
    """Return the status or the problem code with which an agent's handshake is answered."""
    try:
        async with await RawSocket.open(server.ws_url, token or server.agent_token, hostname, tls=tls):
            return 101
    except RefusalError as refused:
        return str(refused.problem["code"])


async def check_agents_are_who_their_certificates_say(server: ServerProcess, authority: Authority) -> None:
    """Assert that an agent is let in with its own certificate and its token alone."""
    by_common_name, by_dns_name = authority.sign("host-1"), authority.sign("someone", names=("DNS:host-2",))
    wildcard = authority.sign("*", names=("DNS:*",))
    assert await dial(server, authority.client(by_common_name), "host-1") == 101
    assert await dial(server, authority.client(by_dns_name), "host-2") == 101
    assert await dial(server, authority.client(by_common_name), "host-2") == "certificate_mismatch"
    assert await dial(server, authority.client(by_common_name), "HOST-1") == "certificate_mismatch"
    assert await dial(server, authority.client(wildcard), "host-3") == "certificate_mismatch"
    assert await dial(server, authority.client(), "host-1") == "certificate_required"
    assert await dial(server, authority.client(by_common_name), "host-1", "wrong") == "unauthorized"


@pytest.mark.promise("certificates")
async def test_agents_need_certificates_of_their_own_and_callers_need_none(authority: Authority) -> None:
    env = {"TLS_CLIENT_CA": str(authority.certificate)}
    async with serving(authority, env=env) as (server, _), server.client() as client:
        await check_agents_are_who_their_certificates_say(server, authority)
        assert (await client.get("/agents")).status_code == 200


@pytest.mark.control("certificates")
async def test_a_server_that_takes_any_certificate_would_be_found(authority: Authority) -> None:
    env = {"TLS_CLIENT_CA": str(authority.certificate)}
    async with serving(authority, env=env, sabotage="any_certificate_served") as (server, _):
        with pytest.raises(AssertionError, match="certificate_mismatch"):
            await check_agents_are_who_their_certificates_say(server, authority)


@pytest.mark.promise("certificates")
async def test_certificates_of_another_authority_do_not_get_through_and_authorities_may_change(
    authority: Authority, tmp_path: Path
) -> None:
    trusted, other = Authority(tmp_path, "trusted"), Authority(tmp_path, "other")
    stranger = other.sign("host-1")
    env = {"TLS_CLIENT_CA": str(trusted.certificate)}
    async with serving(authority, env=env) as (server, _):
        with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
            await dial(server, authority.client(stranger), "host-1")
        trusted.certificate.write_bytes(other.certificate.read_bytes())
        await server.logged("certificate_taken")
        assert await dial(server, authority.client(stranger), "host-1") == 101
