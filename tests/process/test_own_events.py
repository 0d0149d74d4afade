"""What the events tell of the control plane itself, over its stops, kills and changes of settings."""

import json
from pathlib import Path
from typing import Any

from tests.support.server import ServerProcess
from tests.support.store import sql

OWN = ("control_plane_started", "control_plane_stopped", "settings_changed")


async def own_events(server: ServerProcess) -> list[dict[str, Any]]:
    """Return them, oldest first."""
    async with server.client() as client:
        events = (await client.get("/events")).json()["events"]
    return [event for event in reversed(events) if event["kind"] in OWN]


async def test_a_restart_with_the_same_settings_tells_of_a_stop_and_a_start() -> None:
    async with ServerProcess(env={"LOG_LEVEL": "INFO"}) as server:
        await server.restart()  # on the port that the first start found
        before = len(await own_events(server))
        await server.restart()
        told = (await own_events(server))[before:]
        assert [event["kind"] for event in told] == ["control_plane_stopped", "control_plane_started"]
        assert "without a stop" not in told[1]["message"]


async def test_a_start_after_a_kill_says_so() -> None:
    async with ServerProcess() as server:
        await server.kill()
        await server.start()
        assert (await own_events(server))[-1]["message"].endswith("its last run ended without a stop.")


async def test_changed_settings_are_told_with_their_values_and_secrets_without(tmp_path: Path) -> None:
    old, new = "an-old-token-of-the-api", "a-new-token-of-the-api"
    async with ServerProcess(tmp_path, {"API_TOKEN": old, "BACKLOG": "100"}) as server:
        await server.restart()
        before = len(await own_events(server))
        await server.terminate()
        server.env |= {"API_TOKEN": new, "BACKLOG": "200", "ALLOWED_ORIGINS": "https://a.example"}
        server.api_token = new
        await server.start()
        told = (await own_events(server))[before:]
        [changed] = [event for event in told if event["kind"] == "settings_changed"]
        assert changed["message"] == "Settings changed since the last start: ALLOWED_ORIGINS, API_TOKEN, BACKLOG."
        assert changed["details"] == {
            "ALLOWED_ORIGINS": {"from": [], "to": ["https://a.example"]},
            "API_TOKEN": "changed",
            "BACKLOG": {"from": 100, "to": 200},
        }
        assert all(not name.startswith("_") for event in told for name in event["details"] or {})


async def test_no_secret_and_nothing_that_would_confirm_a_guess_of_one_is_stored(tmp_path: Path) -> None:
    async with ServerProcess(tmp_path) as server:
        for _ in range(3):
            await server.restart()
        stored = sql(server.database_path, "SELECT details FROM event WHERE kind = 'control_plane_started' ORDER BY id")
        assert len(stored) == 4
        for text in stored:
            assert server.api_token not in text
            assert server.agent_token not in text
        marks = [json.loads(text)["_marks"] for text in stored]
        # 16 bits of each, and the same ones at every start: further salts would add further bits.
        assert all(mark == marks[0] for mark in marks)
        assert all(len(mark) == 4 for name, mark in marks[0].items() if name != "salt")
