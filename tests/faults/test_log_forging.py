"""Logs, database and WAL after hostile text from everywhere: no secret where it must not be, no forged line."""

from pathlib import Path

import pytest

from tests.faults.canaries import HARMLESS, Canaries, check_log, hunt, provoke
from tests.support.server import ServerProcess

LOUD = {"LOG_LEVEL": "DEBUG"}
"""The most that can be logged."""
DATABASE = {"control_plane.db", "control_plane.db-wal"}


def check_canaries(server: ServerProcess, canaries: Canaries) -> None:
    """Assert that nothing of what was sent is in the logs, and that files have only what is to be stored."""
    assert {needle for needle in canaries.all() if needle in server.stdout + server.stderr} == set()
    found = hunt(server.directory, canaries.all())
    assert set(found) <= DATABASE, found
    assert set().union(*found.values()) == canaries.stored


def check_text(shown: str) -> None:
    """Assert that a job's log can be printed on a terminal."""
    assert [character for character in shown if not character.isprintable() and character not in HARMLESS] == []


async def provoked(server: ServerProcess) -> tuple[Canaries, str]:
    """Put canaries into a running server; return them, and a hostile job's log."""
    canaries = Canaries()
    shown = await provoke(server, canaries)
    assert canaries.answer in shown
    return canaries, shown


@pytest.mark.promise("log forging")
async def test_hostile_text_is_neither_logged_nor_stored_where_it_can_do_harm(tmp_path: Path) -> None:
    async with ServerProcess(tmp_path, LOUD) as server:
        canaries, shown = await provoked(server)
        check_canaries(server, canaries)  # while the WAL is there
        check_text(shown)
        tokens = {server.api_token, server.agent_token}
        assert hunt(tmp_path, tokens) == {}, "set by the operator, so nobody needs to keep them"
        await server.terminate()
        check_canaries(server, canaries)
        check_log(server.stderr)
        for event in ("agent_connected", "agent_refused", "bad_message", "answer_ignored", "job_finished"):
            assert f'"event": "{event}"' in server.stderr, "what hostile text is logged with did not happen"
        assert not any(token in server.stdout + server.stderr for token in tokens)


@pytest.mark.promise("log forging")
async def test_tokens_that_the_server_made_are_only_in_the_private_file(tmp_path: Path) -> None:
    unset = {**LOUD, "API_TOKEN": None, "AGENT_SECRET_TOKEN": None}
    async with ServerProcess(tmp_path, unset) as server:
        await provoked(server)
        tokens = {server.api_token, server.agent_token}
        assert len(tokens) == 2
        assert hunt(tmp_path, tokens) == {"control_plane.secrets": {server.agent_token}}, "the API's is kept as a hash"
        assert (tmp_path / "control_plane.secrets").stat().st_mode & 0o777 == 0o600
        assert not any(token in server.stderr for token in tokens)


@pytest.mark.control("log forging")
async def test_a_line_that_shows_payloads_would_be_found(tmp_path: Path) -> None:
    async with ServerProcess(tmp_path, LOUD, sabotage="payloads_logged") as server:
        canaries, _ = await provoked(server)
        with pytest.raises(AssertionError, match=canaries.environment):
            check_canaries(server, canaries)


@pytest.mark.control("log forging")
async def test_a_log_that_escapes_nothing_would_be_found(tmp_path: Path) -> None:
    async with ServerProcess(tmp_path, LOUD, sabotage="log_lines_unescaped") as server:
        await provoked(server)
        await server.terminate()
        assert '\n{"event": "forged"' in server.stderr
        with pytest.raises((AssertionError, ValueError)):
            check_log(server.stderr)


@pytest.mark.control("log forging")
async def test_agents_text_that_nobody_cleans_would_be_found(tmp_path: Path) -> None:
    async with ServerProcess(tmp_path, LOUD, sabotage="agents_text_as_it_comes") as server:
        _, shown = await provoked(server)
        with pytest.raises(AssertionError):
            check_text(shown)
