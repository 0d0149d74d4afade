"""Secrets: who is let in, what is kept of them and how, and what is refused rather than made anew."""

import hashlib
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from control_plane.config import Settings, SettingsError
from control_plane.core.tokens import TokenChecker
from control_plane.secrets import NewSecrets, Secrets, resolve_secrets, secrets_path

AGENT = "kV3x9-Zp_41hTqLw8sRb"
API = "Pq7-Lm2_xWd94nZt0yGc"
GOOD_LINES = f"agent_secret_token={'A' * 43}\napi_token_sha256={'0' * 64}\n"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        database_url=f"sqlite:///{tmp_path}/control_plane.db",
        agent_secret_token=None,
        api_token=None,
        api_auth="token",
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "control_plane.secrets"


def made(settings: Settings) -> tuple[Secrets, NewSecrets]:
    secrets, told = resolve_secrets(settings)
    assert told is not None
    return secrets, told


@pytest.mark.promise("no default secrets")
def test_the_first_start_makes_both_secrets_and_they_let_their_owners_in(settings: Settings) -> None:
    secrets, told = made(settings)
    assert told.agent_token is not None
    assert told.api_token is not None
    assert secrets.api is not None
    assert opens(secrets.agent, told.agent_token)
    assert secrets.api.matches(told.api_token)
    assert not opens(secrets.agent, told.api_token)
    assert not secrets.api.matches(told.agent_token)


@pytest.mark.promise("no default secrets")
def test_only_this_user_can_read_the_file_whatever_the_umask(settings: Settings, file: Path) -> None:
    before = os.umask(0)
    try:
        made(settings)
    finally:
        os.umask(before)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.promise("no default secrets")
def test_the_agents_secret_is_kept_in_clear_and_the_api_token_only_as_its_hash(
    settings: Settings, tmp_path: Path, file: Path
) -> None:
    _, told = made(settings)
    assert told.api_token is not None
    assert f"agent_secret_token={told.agent_token}\n" in file.read_text()
    assert f"api_token_sha256={hashlib.sha256(told.api_token.encode()).hexdigest()}\n" in file.read_text()
    everything = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert told.api_token.encode() not in everything


def opens(checker: TokenChecker | None, token: str) -> bool:
    return checker is not None and checker.matches(token)


def test_a_secret_that_agents_do_not_share_is_neither_made_nor_taken(tmp_path: Path) -> None:
    for named in (None, SecretStr(AGENT)):
        settings = Settings(
            database_url=f"sqlite:///{tmp_path}/s.db", agent_shared_secret="off", agent_secret_token=named
        )
        secrets, told = resolve_secrets(settings)
        assert secrets.agent is None
        assert told is not None
        assert (told.agent_token, told.agent_kept) == (None, False)


def test_the_second_start_uses_what_the_first_made_and_shows_no_token(settings: Settings, file: Path) -> None:
    _, first = made(settings)
    content = file.read_bytes()
    secrets, second = made(settings)
    assert first.agent_token is not None
    assert first.api_token is not None
    assert secrets.api is not None
    assert opens(secrets.agent, first.agent_token)
    assert secrets.api.matches(first.api_token)
    assert (second.agent_token, second.api_token) == (None, None)
    assert file.read_bytes() == content


def test_deleting_the_api_tokens_line_makes_a_new_one_and_leaves_the_agents_secret(
    settings: Settings, file: Path
) -> None:
    _, first = made(settings)
    kept = [line for line in file.read_text().splitlines() if not line.startswith("api_token_sha256")]
    file.write_text("\n".join(kept) + "\n")
    secrets, second = made(settings)
    assert first.agent_token is not None
    assert first.api_token is not None
    assert second.api_token is not None
    assert secrets.api is not None
    assert secrets.api.matches(second.api_token)
    assert not secrets.api.matches(first.api_token)
    assert opens(secrets.agent, first.agent_token)
    assert second.agent_token is None


def test_configured_secrets_are_used_and_no_file_is_made(settings: Settings, file: Path) -> None:
    secrets, told = resolve_secrets(
        settings.model_copy(update={"agent_secret_token": SecretStr(AGENT), "api_token": SecretStr(API)})
    )
    assert secrets.api is not None
    assert opens(secrets.agent, AGENT)
    assert secrets.api.matches(API)
    assert told is None
    assert not file.exists()


def test_a_configured_secret_wins_over_the_kept_one_and_leaves_it_as_it_is(settings: Settings, file: Path) -> None:
    _, first = made(settings)
    content = file.read_bytes()
    secrets, _ = resolve_secrets(settings.model_copy(update={"agent_secret_token": SecretStr(AGENT)}))
    assert first.agent_token is not None
    assert opens(secrets.agent, AGENT)
    assert not opens(secrets.agent, first.agent_token)
    assert file.read_bytes() == content


def test_an_open_api_has_no_checker_and_no_token_is_made_for_it(settings: Settings, file: Path) -> None:
    secrets, told = made(settings.model_copy(update={"api_auth": "none"}))
    assert secrets.api is None
    assert told.api_token is None
    assert "api_token_sha256" not in file.read_text()


def test_servers_that_start_at_once_end_with_the_same_secrets(settings: Settings) -> None:
    with ThreadPoolExecutor(16) as pool:
        results = list(pool.map(lambda _: made(settings), range(16)))
    makers = [told for _, told in results if told.agent_token]
    assert len(makers) == 1
    agent_token, api_token = makers[0].agent_token, makers[0].api_token
    assert agent_token is not None
    assert api_token is not None
    for secrets, _ in results:
        assert secrets.api is not None
        assert opens(secrets.agent, agent_token)
        assert secrets.api.matches(api_token)


def test_what_a_crash_left_of_an_unfinished_file_is_not_in_the_way(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / ".control_plane.new.secrets").write_text("agent_secret_tok")
    _, told = made(settings)
    assert told.agent_token is not None
    assert not (tmp_path / ".control_plane.new.secrets").exists()


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620, 0o777])
def test_a_file_that_others_can_read_or_write_is_refused(settings: Settings, file: Path, mode: int) -> None:
    made(settings)
    file.chmod(mode)
    with pytest.raises(SettingsError) as caught:
        resolve_secrets(settings)
    line = str(caught.value)
    assert f"chmod 600 {file}" in line
    assert f"mode {mode:04o}" in line
    assert "\n" not in line
    assert stat.S_IMODE(file.stat().st_mode) == mode


DAMAGED = {
    "empty": b"",
    "blank": b"\n \n",
    "cut within a token": GOOD_LINES[:40].encode(),
    "cut within a hash": GOOD_LINES[:-9].encode(),
    "zeros, as after a power cut": b"\x00" * 200,
    "not text": b"\xff\xfe" + GOOD_LINES.encode(),
    "an unknown line": (GOOD_LINES + "colour=red\n").encode(),
    "a line twice": (GOOD_LINES + f"agent_secret_token={'B' * 43}\n").encode(),
    "a token with a space": GOOD_LINES.replace("AAA", "A A", 1).encode(),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_file_is_refused_and_left_as_it_is(settings: Settings, file: Path, content: bytes) -> None:
    file.write_bytes(content)
    file.chmod(0o600)
    with pytest.raises(SettingsError, match=r"is damaged \(.*\): restore it from a backup") as caught:
        resolve_secrets(settings)
    assert "AAA" not in str(caught.value)
    assert file.read_bytes() == content


LINE_END = GOOD_LINES.index("\n")


@given(st.integers(0, len(GOOD_LINES) - 2).filter(lambda cut: cut not in {LINE_END, LINE_END + 1}))
def test_a_file_cut_anywhere_within_a_line_is_never_taken_for_whole(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    directory = tmp_path_factory.mktemp("cut")
    file = directory / "control_plane.secrets"
    file.write_text(GOOD_LINES[:cut])
    file.chmod(0o600)
    with pytest.raises(SettingsError, match="is damaged"):
        resolve_secrets(Settings(database_url=f"sqlite:///{directory}/control_plane.db"))


def test_a_directory_in_the_place_of_the_file_is_refused(settings: Settings, file: Path) -> None:
    file.mkdir(mode=0o700)
    with pytest.raises(SettingsError, match="is not a file"):
        resolve_secrets(settings)


def test_a_pipe_in_the_place_of_the_file_does_not_hang_the_start(settings: Settings, file: Path) -> None:
    os.mkfifo(file, 0o600)
    with pytest.raises(SettingsError, match="is not a file"):
        resolve_secrets(settings)


def test_secrets_that_cannot_be_kept_are_refused(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / ".control_plane.new.secrets").mkdir()
    with pytest.raises(SettingsError, match=r"cannot be used .* or set AGENT_SECRET_TOKEN and API_TOKEN"):
        resolve_secrets(settings)


def test_the_file_stands_beside_the_database_with_its_name() -> None:
    assert secrets_path(Path("/data/control_plane.db")) == Path("/data/control_plane.secrets")
