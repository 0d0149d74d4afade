"""Canaries: strings that occur nowhere else, put wherever a stranger or a user may put text, and looked for after.

`provoke` gives them to a real server in every way there is, `hunt` tells where they came out.
"""

import contextlib
import json
import secrets
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.support.go_agent import GoAgent
from tests.support.go_agent_work import Command, Outcome
from tests.support.raw_socket import CLOSE, TEXT, Header, RawSocket, RefusalError
from tests.support.server import ServerProcess

FORGED_LINE = '\r\n{"event": "forged", "level": "info", "logger": "x", "timestamp": "2026-01-01T00:00:00Z"}\n'
TERMINAL = "\x1b[2J\x1b]0;owned\x07\x9b31m\x00\x08\x7f"
"""Clears the screen, names the window, colours by a C1 code, and deletes."""
HARMLESS = "\n\t"


def canary(name: str) -> str:
    return f"{name}-{secrets.token_hex(8)}"


@dataclass(frozen=True)
class Canaries:
    """One for each way in."""

    compose: str = field(default_factory=lambda: canary("compose"))
    environment: str = field(default_factory=lambda: canary("environment"))
    refused_file: str = field(default_factory=lambda: canary("refused"))
    answer: str = field(default_factory=lambda: canary("answer"))
    malformed: str = field(default_factory=lambda: canary("malformed"))
    bad_message: str = field(default_factory=lambda: canary("badmessage"))
    query: str = field(default_factory=lambda: canary("query"))
    header: str = field(default_factory=lambda: canary("header"))
    wrong_api_token: str = field(default_factory=lambda: canary("wrongapitoken"))
    wrong_agent_token: str = field(default_factory=lambda: canary("wrongagenttoken"))

    def all(self) -> set[str]:
        return set(vars(self).values())

    @property
    def stored(self) -> set[str]:
        """Those that belong in the database, and nowhere else."""
        return {self.compose, self.environment, self.answer}

    @property
    def file(self) -> str:
        return (
            f"services:\n  web:\n    image: example.com/{self.compose}\n"
            f"    environment:\n      PASSWORD: {self.environment}\n"
        )


async def provoke(server: ServerProcess, canaries: Canaries) -> str:
    """Put every canary into the server; return the log, as the API shows it, of a job of a hostile agent."""
    async with server.client() as client, GoAgent(server.ws_url, server.agent_token, "host-1") as agent:
        await agent.connected()
        agent.work = lambda command: _hostile_work(command, canaries)
        body = {"project_name": "web", "compose_file": canaries.file}
        job = (await client.post("/deploy", json=body, params={"wait": 30})).json()
        assert job["status"] == "failed", job
        await _refused_requests(client, canaries)
        await _hostile_agents(server, canaries)
        # Once more, so that all before it was taken: the log has it then.
        assert (await client.post("/deploy", json=body, params={"wait": 30})).json()["status"] == "failed"
        shown = (await client.get(f"/jobs/{job['job_id']}")).json()
        return f"{shown['logs']}{shown['error']}"


async def _hostile_work(_command: Command, canaries: Canaries) -> Outcome:
    text = f"{canaries.answer}{TERMINAL}{FORGED_LINE}"
    return Outcome("FAILED", text, error=text)


async def _refused_requests(client: httpx.AsyncClient, canaries: Canaries) -> None:
    answers = [
        await client.get("/jobs", params={"cursor": canaries.query, "limit": canaries.query}),
        await client.get(f"/projects/{canaries.query}%0A%1B[2J/status"),
        await client.get(f"/{canaries.query}%0D%0A"),
        await client.get("/agents", headers={"Authorization": f"Bearer {canaries.wrong_api_token}"}),
        await client.post("/deploy", content=f'{{"project_name": "{canaries.malformed}"'),
        await client.post("/deploy", json={"project_name": "web", "compose_file": f"x: [{canaries.refused_file}"}),
        await client.post("/deploy", json={canaries.malformed: FORGED_LINE}),
    ]
    assert {answer.status_code for answer in answers} <= {401, 404, 415, 422}
    odd_id = await client.get("/agents", headers=[(b"X-Request-ID", f"{canaries.header} \x9b31m".encode("latin-1"))])
    assert canaries.header not in odd_id.headers["x-request-id"]


async def _hostile_agents(server: ServerProcess, canaries: Canaries) -> None:
    # Header values may hold no C0, which HTTP refuses, but every byte from 0x80 on.
    odd = b"evil\x9b31m\x85\xe2\x80\xa8host"
    for token in (canaries.wrong_agent_token, server.agent_token):
        headers: list[Header] = [("Authorization", f"Bearer {token}"), ("X-Agent-Hostname", odd)]
        headers += [("X-Agent-Version", b"\x9b2J"), ("Cookie", canaries.header)]
        with contextlib.suppress(RefusalError):
            raw = await RawSocket.upgrade(server.ws_url, headers)
            async with raw:
                raw.send(TEXT, f"no JSON {canaries.bad_message}{FORGED_LINE}".encode())
                raw.send(TEXT, json.dumps({"job_id": 1, "status": canaries.bad_message}).encode())
                raw.say(f"x{TERMINAL}{FORGED_LINE}", "COMPLETED", canaries.bad_message)
                raw.send(CLOSE, (4242).to_bytes(2, "big") + canaries.bad_message.encode())
                await raw.closed()


def check_log(text: str) -> None:
    """Assert that each line is one event of ours, and that nobody's text began a line or reached a terminal raw."""
    lines = text.removesuffix("\n").split("\n")
    assert len(lines) > 5
    for line in lines:
        assert line.isprintable(), f"control characters in {line!r}"
        event = json.loads(line)
        assert {"event", "level", "timestamp"} <= set(event), line
        assert event["event"] != "forged", line


def hunt(directory: Path, needles: set[str]) -> dict[str, set[str]]:
    """Return the names of files in which needles are, with those found in each."""
    found: dict[str, set[str]] = {}
    for path in directory.iterdir():
        content = path.read_bytes()
        if here := {needle for needle in needles if needle.encode() in content}:
            found[path.name] = here
    return found
