"""The agent's pure parts: command lines, names, bounds, settings and sentences."""

import asyncio
import base64
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.exceptions import InvalidUpgrade

from agent import compose, host, projects, settings
from agent.connection import delay_bounds, explain
from agent.joblog import BoundedText, JobLog

GOOD_FLAGS = ["--server", "ws://cp:8000/ws", "--token", "t0ken", "--hostname", "h"]


def test_command_lines_are_those_of_the_installed_agents() -> None:
    assert compose.PLUGIN.up() == ["docker", "compose", "up", "-d"]
    assert compose.PLUGIN.down() == ["docker", "compose", "down"]
    assert compose.PLUGIN.ps() == ["docker", "compose", "ps"]
    assert compose.PLUGIN.ps_json() == ["docker", "compose", "ps", "--all", "--format", "json"]
    assert compose.PLUGIN.check() == ["docker", "compose", "config", "-q"]
    assert compose.STANDALONE.up() == ["docker-compose", "up", "-d"]


def test_children_get_the_environment_without_the_token_and_with_plain_output() -> None:
    given_to_child = compose.child_environment(
        {"AGENT_SECRET_TOKEN": "x", "AGENT_ENROLLMENT_TOKEN": "x", "COMPOSE_FILE": "y", "HOME": "/h"}
    )
    assert "x" not in given_to_child.values()
    assert "y" not in given_to_child.values()
    assert given_to_child["HOME"] == "/h"
    assert (given_to_child["COMPOSE_ANSI"], given_to_child["COMPOSE_PROGRESS"]) == ("never", "plain")


@pytest.mark.parametrize(
    "output", ['[{"Name":"a"},{"Name":"b"}]\n', '{"Name":"a"}\n{"Name":"b"}\n', '\n{"Name":"a"}\n\n{"Name":"b"}']
)
def test_both_forms_of_compose_json_are_read(output: str) -> None:
    assert [row["Name"] for row in compose.parse_ps(output)] == ["a", "b"]


def test_no_containers_are_an_empty_list() -> None:
    assert compose.parse_ps("") == []
    assert compose.parse_ps("[]\n") == []


@pytest.mark.parametrize("output", ["{", "[1]", "3", "no json", '{"a":1} trailing'])
def test_other_output_than_containers_is_refused(output: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        compose.parse_ps(output)


def test_a_failure_says_how_it_ended_and_what_was_said() -> None:
    argv = ["docker", "compose", "up", "-d"]
    assert compose.explain_failure(argv, 1, "") == (
        "`docker compose up -d` failed (exit status 1); it printed nothing."
    )
    assert compose.explain_failure(argv, -9, "x\n") == "`docker compose up -d` failed (ended by signal 9): x"
    both = compose.explain_failure(argv, 1, "pulling\nError: first cause\nsomething failed later\n\n")
    assert both.endswith(": Error: first cause / something failed later")
    assert len(compose.explain_failure(argv, 1, "x" * 100_000)) < 1200


@given(st.lists(st.text()), st.integers(min_value=100, max_value=400))
def test_bounded_text_keeps_both_ends_within_its_bound(pieces: list[str], limit: int) -> None:
    bounded = BoundedText(limit)
    for piece in pieces:
        bounded.append(piece)
    whole = "".join(pieces).encode("utf-8", "replace").decode()
    kept = bounded.text()
    assert len(kept.encode()) <= limit
    if len(whole.encode()) <= (limit - 80) // 2 * 2:
        assert kept == whole
    if kept != whole:
        head, _, tail = kept.partition("\n… [at least ")
        assert whole.startswith(head)
        assert whole.endswith(tail.partition(" bytes are left out here] …\n")[2])
        assert len(kept.encode()) >= limit - 100


async def test_a_character_split_between_two_reads_stays_whole_in_the_log() -> None:
    published = asyncio.Event()
    log = JobLog(published.set)
    first, second = "ü".encode()[:1], "ü".encode()[1:]
    log.write(first)
    log.write(second)
    log.note("a note")
    log.write(b"\xff")
    await asyncio.wait_for(published.wait(), 5)
    assert log.take() == "üa note\n�"
    log.write(b"end")
    assert log.close() == "üa note\n�end"


@given(st.text())
def test_every_accepted_project_name_stays_in_the_base_directory(name: str) -> None:
    try:
        accepted = projects.check_name(name)
    except projects.ProjectError:
        return
    assert (Path("/base") / accepted).resolve().parent == Path("/base")
    assert projects.compose_key(accepted)


def test_compose_folds_case_and_leading_marks() -> None:
    assert {projects.compose_key(name) for name in ("Web", "web", "_web", "-_WEB")} == {"web"}
    assert projects.compose_key("a_-b-") == "a_-b-"


@given(st.binary())
def test_every_encoded_file_is_decoded_to_itself(content: bytes) -> None:
    assert projects.decode_compose_file(base64.b64encode(content).decode()) == content
    assert projects.decode_compose_file(base64.encodebytes(content).decode()) == content


@pytest.mark.parametrize("encoded", ["YQ=", "YQ", "YQ==YQ==", "Y Q=", "YQ-_", "=", "YWJj=", "YWJj====", None, b"YQ=="])
def test_anything_but_standard_base64_is_refused(encoded: object) -> None:
    with pytest.raises(projects.ProjectError, match="compose_file_base64"):
        projects.decode_compose_file(encoded)


@pytest.mark.parametrize(
    ("system", "machine", "expected"),
    [
        ("Linux", "x86_64", "linux-amd64"),
        ("Linux", "aarch64", "linux-arm64"),
        ("Linux", "armv7l", "linux-arm"),
        ("Darwin", "arm64", "darwin-arm64"),
        ("Linux", "riscv64", "linux-riscv64"),
    ],
)
def test_architectures_are_named_as_go_names_them(system: str, machine: str, expected: str) -> None:
    assert host.architecture(system, machine) == expected


def test_memory_is_read_in_bytes_and_unknown_figures_are_null() -> None:
    text = "MemTotal:       16000 kB\nMemFree: 1 kB\nMemAvailable:    8000 kB\nHugePages_Total:       0\nBroken\n"
    assert host.read_memory(text) == {"memory_available_bytes": 8_192_000, "memory_total_bytes": 16_384_000}
    assert host.read_memory("") == {"memory_available_bytes": None, "memory_total_bytes": None}


def test_flags_win_over_the_environment() -> None:
    environ = {"SERVER_URL": "wss://env/ws", "AGENT_SECRET_TOKEN": "env", "PROJECTS_DIR": "/env", "AGENT_HOSTNAME": "e"}
    from_environment = settings.read_settings([], environ)
    assert (from_environment.server_url, from_environment.token) == ("wss://env/ws", "env")
    assert (from_environment.projects_dir, from_environment.hostname) == (Path("/env"), "e")
    from_flags = settings.read_settings([*GOOD_FLAGS, "--projects-dir", "/flag", "--dry-run"], environ)
    assert (from_flags.server_url, from_flags.token) == ("ws://cp:8000/ws", "t0ken")
    assert (from_flags.projects_dir, from_flags.hostname, from_flags.dry_run) == (Path("/flag"), "h", True)


def test_defaults_are_the_hosts_own() -> None:
    found = settings.read_settings(["--server", "ws://cp:8000"], {"AGENT_SECRET_TOKEN": "t", "XDG_DATA_HOME": "/x"})
    assert found.server_url == "ws://cp:8000/ws"
    assert found.hostname
    assert found.projects_dir in {Path("/var/lib/instadeploy/projects"), Path("/x/instadeploy/projects")}


def test_the_token_is_not_in_the_settings_repr() -> None:
    assert "t0ken" not in repr(settings.read_settings(GOOD_FLAGS, {}))


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ([], "SERVER_URL"),
        (["--server", "http://cp:8000/ws"], "ws://HOST:PORT/ws"),
        (["--server", "ws://"], "--server"),
        (["--server", "ws://cp:99999/ws"], "--server"),
        (["--server", "ws://user:secret@cp/ws"], "--server"),
        (["--server", "ws://cp/w s"], "--server"),
        (["--server", "ws://cp", "--token", "two words"], "--token"),
        (["--server", "ws://cp", "--token", "line\nbreak"], "--token"),
        (["--server", "ws://cp", "--token", "t", "--hostname", "h\r\nX: 1"], "--hostname"),
        (["--server", "ws://cp", "--token", "t", "--hostname", "h" * 256], "--hostname"),
        (["--log-level", "loud"], "--log-level"),
        (["--tok", "t"], "--help"),
    ],
)
def test_a_setting_that_cannot_work_is_named_in_one_line(flags: list[str], named: str) -> None:
    with pytest.raises(settings.SettingsError) as refused:
        settings.read_settings(flags, {})
    assert named in str(refused.value)
    assert "\n" not in str(refused.value)


def test_help_names_every_environment_variable(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        settings.read_settings(["--help"], {})
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for name in (
        "SERVER_URL",
        "AGENT_SECRET_TOKEN",
        "AGENT_ENROLLMENT_TOKEN",
        "AGENT_HOSTNAME",
        "PROJECTS_DIR",
        "SERVER_CA_FILE",
        "CLIENT_CERT_FILE",
    ):
        assert name in text


def test_the_wait_between_attempts_doubles_from_1_s_to_2_min() -> None:
    assert [delay_bounds(failures) for failures in (0, 1, 6, 7, 1000)] == [(0, 1), (0, 2), (0, 64), (0, 120), (0, 120)]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (TimeoutError(), "did not answer within 10 s"),
        (OSError("no route"), "cannot be reached (no route)"),
        (InvalidUpgrade("Upgrade", "h2c"), "is no control plane"),
    ],
)
def test_a_failed_attempt_is_one_sentence_with_the_address(error: Exception, expected: str) -> None:
    sentence = explain(error, settings.read_settings(GOOD_FLAGS, {}))
    assert expected in sentence
    assert "ws://cp:8000/ws" in sentence
