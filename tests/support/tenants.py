"""Organisations and tokens on a running control plane: who there is beside the root token that every Site has.

Used by the tests of who may do what. A `Tenant` is a caller with a token of its own; its answers are held to the
OpenAPI document like all others.
"""

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.support.app import Site, client_with

Answer = dict[str, Any]

OWNED = ("agent", "deployment", "placement", "job", "event", "idempotency_record", "token")
"""Tables whose rows belong to an organisation."""


@dataclass(frozen=True)
class Tenant:
    """A caller of the API with a token of its own."""

    token: str
    token_id: int
    organization_id: int
    client: httpx.AsyncClient

    async def get(self, path: str, **params: Any) -> Any:
        """Return the JSON of a GET that succeeds."""
        response = await self.client.get(path, params=params)
        assert response.status_code == 200, response.text
        return response.json()

    async def does(self, method: str, path: str, body: Any = None, **params: Any) -> Any:
        """Return the JSON of a request that succeeds; None where it has no content."""
        response = await self.client.request(method, path, json=body, params=params)
        assert response.is_success, response.text
        return response.json() if response.content else None

    async def refused(self, method: str, path: str, body: Any = None, **options: Any) -> tuple[int, str]:
        """Return status and code of a request that is refused."""
        response = await self.client.request(method, path, json=body, **options)
        assert response.is_error, response.text
        return response.status_code, response.json()["code"]


async def made(client: httpx.AsyncClient, path: str, body: Answer) -> Answer:
    """Return what a POST has made: 201."""
    response = await client.post(path, json=body)
    assert response.status_code == 201, response.text
    answer: Answer = response.json()
    return answer


async def organization(site: Site, name: str) -> int:
    """Return the id of a new organisation."""
    return int((await made(site.client, "/organizations", {"name": name}))["id"])


async def tenant(site: Site, role: str = "admin", **fields: Any) -> Tenant:
    """Return a caller whose token root has just made; `fields` are those of POST /tokens."""
    row = await made(site.client, "/tokens", {"name": f"a {role}", "role": role, **fields})
    return await holding(site, row["token"], row)


async def holding(site: Site, token: str, row: Answer) -> Tenant:
    """Return the caller who holds a token; its client is closed when the test ends."""
    client = await site.agents.enter_async_context(client_with(site.url, token))
    return Tenant(token, row["id"], row["organization_id"], client)


def rows_of(database: Path, organization_id: int) -> dict[str, set[Any]]:
    """Return every row of an organisation by table, without what agents and tokens change by being used."""
    with closing(sqlite3.connect(database, timeout=5)) as connection:
        connection.row_factory = sqlite3.Row
        found = {
            table: [
                dict(row)
                for row in connection.execute(f"SELECT * FROM {table} WHERE organization_id = ?", (organization_id,))  # noqa: S608
            ]
            for table in OWNED
        }
        labels = connection.execute(
            "SELECT agent_id, key, value FROM agent_label JOIN agent ON id = agent_id WHERE organization_id = ?",
            (organization_id,),
        )
        rows = {"agent_label": {tuple(row) for row in labels}}
    for each in (*found["agent"], *found["token"]):
        for by_itself in ("last_seen", "last_used_at"):
            each.pop(by_itself, None)
    return rows | {table: {tuple(row.items()) for row in listed} for table, listed in found.items()}
