"""Logs: one event a line whatever a stranger puts into it, no tokens, and nothing of what libraries read."""

import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Literal

import pytest
import structlog

from control_plane.logs import configure_logging

FORGED = 'x\n{"event": "forged"}\r\x1b[2J\x9b31m\u0085\u2028\u202eend'


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    ours, uvicorn_log = logging.getLogger("control_plane"), logging.getLogger("uvicorn.error")
    before = (root.handlers[:], root.level, ours.level, uvicorn_log.level, uvicorn_log.filters[:])
    yield
    root.handlers[:], level, ours.level, uvicorn_log.level, uvicorn_log.filters[:] = before
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_text_from_outside_cannot_forge_a_line_or_drive_a_terminal(
    capsys: pytest.CaptureFixture[str], log_format: Literal["console", "json"]
) -> None:
    configure_logging(log_format, "INFO")
    structlog.get_logger("control_plane.ws").info(f"agent {FORGED}", hostname=FORGED)
    logging.getLogger("library").warning("agent %s", FORGED)
    output = capsys.readouterr().err
    assert output.count("\n") == 2
    assert all(character.isprintable() for line in output.split("\n") for character in line)


def test_a_json_line_has_event_level_logger_time_and_what_was_added(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("json", "INFO")
    structlog.get_logger("control_plane.ws").info("agent connected", agent_id=7)
    event = json.loads(capsys.readouterr().err)
    at = datetime.fromisoformat(event.pop("timestamp"))
    assert at.tzinfo == UTC
    assert event == {"event": "agent connected", "level": "info", "logger": "control_plane.ws", "agent_id": 7}


def test_a_traceback_stays_in_its_events_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("json", "INFO")
    try:
        raise RuntimeError("boom")
    except RuntimeError:
        structlog.get_logger("control_plane.loops").exception("loop failed")
        logging.getLogger("library").exception("library failed")
    lines = capsys.readouterr().err.splitlines()
    assert ["RuntimeError: boom" in json.loads(line)["exception"] for line in lines] == [True, True]


def test_an_error_with_hostile_words_cannot_forge_a_line_of_the_console(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("console", "INFO")
    try:
        raise RuntimeError(FORGED)
    except RuntimeError:
        structlog.get_logger("control_plane.loops").exception("loop failed")
        logging.getLogger("library").exception("library failed")
    lines = capsys.readouterr().err.splitlines()
    assert all(line.isprintable() for line in lines)
    events = [line for line in lines if not line.startswith("  | ")]
    assert [("loop failed" in line, "library failed" in line) for line in events] == [(True, False), (False, True)]
    assert any("forged" in line for line in lines)


@pytest.mark.parametrize("key", ["token", "authorization", "api_token", "agent_secret_token", "secret"])
def test_a_value_named_as_a_secret_is_not_logged(capsys: pytest.CaptureFixture[str], key: str) -> None:
    configure_logging("json", "INFO")
    structlog.get_logger("control_plane.ws").info("refused", **{key: "canary"})
    logging.getLogger("library").warning("refused", extra={key: "canary"})
    output = capsys.readouterr().err
    assert output.count("[redacted]") == 2
    assert "canary" not in output


@pytest.mark.parametrize(("level", "told"), [("INFO", False), ("DEBUG", True)])
def test_every_connection_is_told_only_at_debug(capsys: pytest.CaptureFixture[str], level: str, told: bool) -> None:
    configure_logging("json", level)
    logging.getLogger("uvicorn.error").info("connection open")
    assert ("connection open" in capsys.readouterr().err) is told


def test_what_libraries_say_at_debug_is_never_logged_as_it_holds_headers_and_payloads(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logging("json", "DEBUG")
    logging.getLogger("uvicorn.error").debug("< %s: %s", "Authorization", "Bearer canary")
    logging.getLogger("library").debug("canary")
    structlog.get_logger("control_plane.ws").debug("ours")
    output = capsys.readouterr().err
    assert "canary" not in output
    assert "ours" in output
