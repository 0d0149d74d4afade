"""Which token the agent presents, where it keeps its own, and what it says when the control plane refuses one."""

import json
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.datastructures import Headers
from websockets.exceptions import InvalidStatus
from websockets.http11 import Response

from agent.connection import delay_bounds, handshake_headers
from agent.credentials import Credentials, NoTokenGivenError, Source, TokenNotKeptError
from agent.refusals import explain_refusal
from agent.settings import Settings, SettingsError, read_settings
from agent.token_file import TokenFile

SERVER = "ws://cp:8000/ws"
BASE = ["--server", SERVER, "--hostname", "h"]


def read(*flags: str, **environ: str) -> Settings:
    return read_settings([*BASE, *flags], environ)


def credentials(directory: Path, *flags: str, **environ: str) -> Credentials:
    return Credentials(read(*flags, **environ), TokenFile(directory, SERVER))


def answer(status: int, body: bytes = b"") -> Response:
    return Response(status, "", Headers(), body)


@pytest.mark.parametrize(
    ("flags", "environ", "expected"),
    [
        (["--enroll", "ide_f"], {}, ("", "ide_f")),
        ([], {"AGENT_ENROLLMENT_TOKEN": "ide_v"}, ("", "ide_v")),
        (["--enroll", "ide_f"], {"AGENT_ENROLLMENT_TOKEN": "ide_v"}, ("", "ide_f")),
        (["--enroll", "ide_f"], {"AGENT_SECRET_TOKEN": "own"}, ("", "ide_f")),
        (["--token", "own"], {"AGENT_ENROLLMENT_TOKEN": "ide_v"}, ("own", "")),
        ([], {}, ("", "")),
    ],
)
def test_a_flag_wins_over_either_variable(flags: list[str], environ: dict[str, str], expected: tuple[str, str]) -> None:
    found = read(*flags, **environ)
    assert (found.token, found.enrollment_token) == expected


@pytest.mark.parametrize(
    ("flags", "environ", "named"),
    [
        (["--enroll", "ide_a", "--token", "b"], {}, "Both --token"),
        ([], {"AGENT_ENROLLMENT_TOKEN": "ide_a", "AGENT_SECRET_TOKEN": "b"}, "Both --token"),
        (["--enroll-only"], {"AGENT_SECRET_TOKEN": "b"}, "--enroll-only needs"),
        (["--enroll", "two words"], {}, "--enroll (AGENT_ENROLLMENT_TOKEN)"),
        (["--token", "ide_a"], {}, "--enroll instead"),
        (["--enroll", "idh_a"], {}, "--token instead"),
    ],
)
def test_tokens_that_contradict_each_other_are_refused(flags: list[str], environ: dict[str, str], named: str) -> None:
    with pytest.raises(SettingsError) as refused:
        read(*flags, **environ)
    assert named in str(refused.value)
    assert not re.search("two words|ide_a|idh_a", str(refused.value))


def test_without_any_token_all_ways_to_get_one_are_told(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as refused:
        credentials(tmp_path)
    for way in ("--enroll", "AGENT_ENROLLMENT_TOKEN", "POST /agents/enroll", "AGENT_SECRET_TOKEN", "--token"):
        assert way in str(refused.value)


async def test_the_token_given_at_enrolment_is_kept_for_this_user_alone_and_found_again(tmp_path: Path) -> None:
    first = credentials(tmp_path, "--enroll", "ide_a")
    assert (first.source, first.token) == (Source.ENROLLMENT, "ide_a")
    await first.keep(["idh_own"])
    assert (first.source, first.token) == (Source.KEPT, "idh_own")
    assert first.file.path.stat().st_mode & 0o777 == 0o600
    assert first.file.path.parent.stat().st_mode & 0o777 == 0o700
    assert os.listdir(first.file.path.parent) == [first.file.path.name]
    assert credentials(tmp_path).token == "idh_own"
    assert credentials(tmp_path, "--enroll", "ide_b").token == "idh_own"
    assert credentials(tmp_path, "--token", "given").token == "given"


@pytest.mark.parametrize("given", [[], [""], ["two words"], ["idh_a", "idh_b"]])
async def test_an_answer_without_one_usable_token_enrols_nobody(tmp_path: Path, given: list[str]) -> None:
    enrolling = credentials(tmp_path, "--enroll", "ide_a")
    with pytest.raises(NoTokenGivenError):
        await enrolling.keep(given)
    assert (enrolling.source, os.listdir(tmp_path)) == (Source.ENROLLMENT, [])


async def test_a_token_that_nobody_asked_for_changes_nothing(tmp_path: Path) -> None:
    given = credentials(tmp_path, "--token", "given")
    await given.keep(["idh_other"])
    assert (given.token, os.listdir(tmp_path)) == ("given", [])


async def test_a_token_that_cannot_be_written_is_not_used_and_not_told(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("in the way")
    enrolling = credentials(tmp_path / "gone", "--enroll", "ide_a")
    with pytest.raises(TokenNotKeptError) as lost:
        await enrolling.keep(["idh_secret"])
    assert str(enrolling.file.path) in str(lost.value)
    assert "idh_secret" not in str(lost.value)
    assert enrolling.token == "ide_a"


async def test_a_refused_kept_token_gives_way_to_the_enrolment_token_and_gets_its_turn_again(tmp_path: Path) -> None:
    await credentials(tmp_path, "--enroll", "ide_a").keep(["idh_own"])
    both = credentials(tmp_path, "--enroll", "ide_b")
    turns = [(both.turn_after_refusal(), both.token) for _ in range(4)]
    assert turns == [(True, "ide_b"), (False, "idh_own"), (True, "ide_b"), (False, "idh_own")]
    kept_alone = credentials(tmp_path)
    assert (kept_alone.turn_after_refusal(), kept_alone.token) == (False, "idh_own")


def test_each_server_has_a_token_of_its_own(tmp_path: Path) -> None:
    urls = [
        SERVER,
        "wss://cp:8000/ws",
        "ws://cp:8001/ws",
        "ws://cp:8000/other/ws",
        "ws://cp2:8000/ws",
        "ws://[::1]:8000/ws",
    ]
    assert len({TokenFile(tmp_path, url).path for url in urls}) == len(urls)
    assert TokenFile(tmp_path, "ws://CP:80/ws").path == TokenFile(tmp_path, "ws://cp/ws").path
    assert TokenFile(tmp_path, SERVER).path.name.startswith("cp-8000-")


@given(st.from_regex(r"[!-~]{1,80}", fullmatch=True).filter(lambda host: not set(host) & set("/?#@[]:%\\")))
def test_a_servers_name_never_leads_out_of_the_directory(host: str) -> None:
    path = TokenFile(Path("/state"), f"ws://{host}/ws").path
    assert path.resolve().parent == Path("/state/tokens")


def _open_to_others(path: Path) -> None:
    path.chmod(0o640)


def _linked(path: Path) -> None:
    path.rename(path.with_suffix(".real"))
    path.symlink_to(path.with_suffix(".real"))


def _directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


def _empty(path: Path) -> None:
    path.write_text("")


def _binary(path: Path) -> None:
    path.write_bytes(b"\xff\x00")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_open_to_others, "chmod 600"),
        (_linked, "symbolic link"),
        (_directory, "no regular file"),
        (_fifo, "no regular file"),
        (_empty, "holds no token"),
        (_binary, "holds no token"),
    ],
)
def test_a_token_file_that_cannot_be_trusted_is_refused_in_one_line(tmp_path: Path, spoil: object, said: str) -> None:
    file = TokenFile(tmp_path, SERVER)
    file.write("idh_own")
    assert callable(spoil)
    spoil(file.path)
    with pytest.raises(SettingsError) as refused:
        file.read()
    assert said in str(refused.value)
    assert str(file.path) in str(refused.value)
    assert "idh_own" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_handshake_presents_the_token_and_promises_only_what_holds(tmp_path: Path) -> None:
    enrolling = handshake_headers(read("--enroll", "ide_a"), credentials(tmp_path, "--enroll", "ide_a"), "i")
    assert enrolling["Authorization"] == "Bearer ide_a"
    assert enrolling["X-Agent-Capabilities"] == "resend status-json enroll"
    given = handshake_headers(read("--token", "t", "--dry-run"), credentials(tmp_path, "--token", "t"), "i")
    assert given["Authorization"] == "Bearer t"
    assert given["X-Agent-Capabilities"] == "resend status-json dry-run"


async def test_a_refusal_says_which_token_why_and_what_to_do(tmp_path: Path) -> None:
    problem = json.dumps({"detail": "The token expired yesterday."}).encode()
    enrolling = credentials(tmp_path, "--enroll", "ide_a")
    sentence = explain_refusal(answer(401, problem), read(), enrolling)
    assert "the enrolment token (HTTP 401: The token expired yesterday): make a new enrolment token" in sentence
    assert '"h"' in explain_refusal(answer(403), read(), enrolling)
    await enrolling.keep(["idh_own"])
    assert str(enrolling.file.path) in explain_refusal(answer(401), read(), enrolling)
    assert "answered HTTP 404: check the address" in explain_refusal(answer(404), read(), enrolling)


@given(st.text() | st.just("Bearer ide_secret is unknown") | st.text(min_size=400))
def test_whatever_a_control_plane_says_makes_one_short_line_without_the_token(detail: str) -> None:
    enrolling = credentials(Path("/nowhere"), "--enroll", "ide_secret")
    sentence = explain_refusal(answer(403, json.dumps({"detail": detail}).encode()), read(), enrolling)
    assert sentence.isprintable()
    assert "ide_secret" not in sentence
    assert len(sentence) < 700


@pytest.mark.parametrize("body", [b"", b"no", b"[" * 100_000, b"[]", b"null", b'{"detail": 7}', b"\xff\xfe{"])
def test_an_answer_without_a_problem_document_is_told_by_its_status(tmp_path: Path, body: bytes) -> None:
    sentence = explain_refusal(answer(401, body), read(), credentials(tmp_path, "--enroll", "ide_a"))
    assert "(HTTP 401): make a new" in sentence


def test_what_only_an_operator_mends_is_tried_seldom() -> None:
    refused = InvalidStatus(answer(401))
    assert [delay_bounds(failures, refused) for failures in (0, 1, 7, 8, 1000)] == [
        (1, 2),
        (2, 4),
        (128, 256),
        (150, 300),
        (150, 300),
    ]
    assert delay_bounds(0, InvalidStatus(answer(503))) == (0, 1)
