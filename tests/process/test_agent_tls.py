"""The Python agent over TLS with the real control plane: whom it trusts, what it shows, what it says of failures."""

from pathlib import Path

import pytest

from tests.support.agent_harness import AgentProcess
from tests.support.certificates import Authority, Pair
from tests.support.docker_stand_in import StandInDocker
from tests.support.server import ServerProcess


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


class Host:
    """A host with an agent that was told of files."""

    def __init__(self, directory: Path, server: ServerProcess, **environ: Path | str) -> None:
        self._docker = StandInDocker(directory / "docker")
        self.agent = AgentProcess(server.ws_url, str(self._docker.path), directory)
        self.agent.extra_environ = {"AGENT_SECRET_TOKEN": server.agent_token}
        self.agent.extra_environ |= {name: str(value) for name, value in environ.items()}

    async def __aenter__(self) -> AgentProcess:
        await self.agent.start()
        return self.agent

    async def __aexit__(self, *_: object) -> None:
        await self.agent.close()
        self._docker.close()


def shown(pair: Pair) -> dict[str, Path]:
    return {"CLIENT_CERT_FILE": pair.certificate, "CLIENT_KEY_FILE": pair.key}


async def test_an_agent_with_its_certificate_is_let_in_and_uses_a_renewed_one_when_it_dials_again(
    authority: Authority, tmp_path: Path
) -> None:
    agents = Authority(tmp_path, "agents")
    other = agents.sign("host-b")
    own = agents.sign("host-a", file="own")
    env = {**authority.sign("server").settings, "TLS_CLIENT_CA": str(agents.certificate)}
    async with ServerProcess(env=env, trust=authority.client()) as server:
        trusted = {"SERVER_CA_FILE": authority.certificate}
        right = own.certificate.read_bytes(), own.key.read_bytes()
        other.put_over(own)
        async with Host(tmp_path, server, **trusted, **shown(own)) as agent:
            await agent.logged("refused this agent (HTTP 403")
            own.key.write_bytes(right[1])
            await agent.logged("--client-cert and --client-key (CLIENT_CERT_FILE, CLIENT_KEY_FILE) cannot be used")
            own.certificate.write_bytes(right[0])
            await agent.logged(f"Connected to {server.ws_url} as host-a.")
            assert "Traceback" not in agent.log()


@pytest.mark.parametrize(
    ("name", "days", "trusting", "said"),
    [
        (("IP:127.0.0.1",), 30, False, "is not trusted (unable to get local issuer certificate): give its authority's"),
        (("DNS:elsewhere.example",), 30, True, "is for another name: dial one that it is for"),
    ],
)
async def test_a_certificate_that_is_not_the_servers_is_told_in_one_line_and_tried_again(
    authority: Authority, tmp_path: Path, name: tuple[str, ...], days: int, trusting: bool, said: str
) -> None:
    pair = authority.sign("server", names=name, days=days)
    trust = authority.client()
    trust.check_hostname = False
    async with ServerProcess(env=pair.settings, trust=trust) as server:
        trusted = {"SERVER_CA_FILE": authority.certificate} if trusting else {}
        async with Host(tmp_path, server, **trusted) as agent:
            await agent.logged(f"The certificate of {server.ws_url} {said}")
            await agent.logged("trying again in")
            assert "Traceback" not in agent.log()
            assert all(" WARNING " in line or " INFO " in line for line in agent.log().splitlines())


async def test_a_certificate_of_a_strange_authority_is_told_as_refused(authority: Authority, tmp_path: Path) -> None:
    stranger = Authority(tmp_path, "stranger").sign("host-a")
    env = {**authority.sign("server").settings, "TLS_CLIENT_CA": str(authority.certificate)}
    async with ServerProcess(env=env, trust=authority.client()) as server:
        trusted = {"SERVER_CA_FILE": authority.certificate}
        async with Host(tmp_path, server, **trusted, **shown(stranger)) as agent:
            await agent.logged("may not take this agent's certificate: check that its authority is in")
            assert "Traceback" not in agent.log()


async def test_a_server_without_tls_is_told_as_such(tmp_path: Path) -> None:
    async with ServerProcess() as server:
        host = Host(tmp_path, server, SERVER_URL=server.ws_url.replace("ws:", "wss:"))
        async with host as agent:
            await agent.logged("speaks no TLS that this agent can use (")
