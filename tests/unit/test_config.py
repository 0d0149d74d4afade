"""Settings: what is taken, what is refused and in which words, and that the documents name every one."""

from pathlib import Path

import pytest

from control_plane import config
from control_plane.config import Settings, SettingsError, allowed_values, load_settings
from tests.support.settings import NAMES, leave_nothing_set, refusal

ROOT = Path(__file__).parents[2]
GOOD = "kV3x9-Zp_41hTqLw8sRb"


@pytest.fixture(autouse=True)
def _own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave_nothing_set(tmp_path, monkeypatch)


def test_nothing_set_gives_the_documented_defaults(tmp_path: Path) -> None:
    settings = load_settings()
    assert (settings.host, settings.port) == ("0.0.0.0", 8000)
    assert settings.agent_secret_token is None
    assert settings.api_token is None
    assert settings.database_path == tmp_path / "control_plane.db"


BAD = [
    ("PORT", "http", "PORT is 'http': it must be a whole number from 0 to 65535."),
    ("PORT", "65536", "PORT is '65536': it must be a whole number from 0 to 65535."),
    ("PORT", "-1", "PORT is '-1': it must be a whole number from 0 to 65535."),
    ("API_AUTH", "off", "API_AUTH is 'off': it must be token or none."),
    ("LOG_FORMAT", "xml", "LOG_FORMAT is 'xml': it must be console or json."),
    ("LOG_LEVEL", "loud", "LOG_LEVEL is 'LOUD': it must be DEBUG, INFO, WARNING or ERROR."),
    ("HOST", "no such host", "HOST is 'no such host': it must be an IP address, or a name that resolves to one."),
    ("HOST", "a..b", "HOST is 'a..b': it must be an IP address, or a name that resolves to one."),
    ("BACKLOG", "0", "BACKLOG is '0': it must be a whole number from 1 to 65535."),
    ("MAX_BODY_BYTES", "1 MiB", "MAX_BODY_BYTES is '1 MiB': it must be a whole number from 1024 to 67108864."),
    ("DEPLOY_TIMEOUT_SECONDS", "0", "DEPLOY_TIMEOUT_SECONDS is '0': it must be a whole number from 1 to 86400."),
    (
        "AGENT_PING_INTERVAL_SECONDS",
        "nan",
        "AGENT_PING_INTERVAL_SECONDS is 'nan': it must be a number from 0.1 to 300.",
    ),
    (
        "DATABASE_URL",
        "postgresql://ops:hunter2@db/control",
        "DATABASE_URL cannot be used: PostgreSQL is not supported yet; use `sqlite:///` and the path of a file.",
    ),
    (
        "DATABASE_URL",
        "sqlite:///:memory:",
        "DATABASE_URL cannot be used: a database in memory would forget accepted deploys at a restart; "
        "name a file after `sqlite:///`.",
    ),
]


@pytest.mark.parametrize(("name", "value", "line"), BAD, ids=[f"{name}={value}" for name, value, _ in BAD])
def test_a_bad_value_is_refused_in_one_line_that_says_what_is_allowed(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, line: str
) -> None:
    assert refusal(monkeypatch, **{name: value}) == line


@pytest.mark.parametrize(
    "url",
    ["control_plane.db", "mysql://ops:hunter2@db/x", "sqlite://ops:hunter2@host/x", "sqlite:///x.db?mode=ro"],
)
def test_a_database_url_is_refused_without_its_password(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    line = refusal(monkeypatch, DATABASE_URL=url)
    assert line.startswith("DATABASE_URL cannot be used: it must be `sqlite:///` and the path of a file")
    assert "hunter2" not in line


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///"])
def test_a_database_without_a_file_is_refused(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    assert "a database in memory would forget" in refusal(monkeypatch, DATABASE_URL=url)


def test_a_database_named_like_the_secrets_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "must not end in .secrets" in refusal(monkeypatch, DATABASE_URL="sqlite:///x.secrets")


def test_a_missing_database_directory_is_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DATABASE_URL", "sqlite:///data/of/mine/x.db")
    assert load_settings().database_path == tmp_path / "data/of/mine/x.db"
    assert (tmp_path / "data/of/mine").is_dir()


def test_a_database_directory_that_cannot_be_made_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    line = refusal(monkeypatch, DATABASE_URL="sqlite:///file/x.db")
    assert line.startswith(f"DATABASE_URL: the directory {tmp_path}/file cannot be made")


def test_a_directory_in_the_place_of_the_database_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "x.db").mkdir()
    line = refusal(monkeypatch, DATABASE_URL="sqlite:///x.db")
    assert line == f"DATABASE_URL: {tmp_path}/x.db is not a file that this user can read and write."


def test_several_bad_values_are_told_at_once_one_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = refusal(monkeypatch, PORT="x", BACKLOG="y", API_AUTH="z").splitlines()
    assert sorted(line.split()[0] for line in lines) == ["API_AUTH", "BACKLOG", "PORT"]


WEAK = [
    "changeme",
    "secret-token",
    "default-secret-token",
    "Default_Secret_Token",
    "change-me-in-production",
    "kV3x9-Zp_41hTqL",
    "a" * 40,
]


@pytest.mark.promise("no default secrets")
@pytest.mark.parametrize("name", ["AGENT_SECRET_TOKEN", "API_TOKEN"])
@pytest.mark.parametrize("weak", WEAK)
def test_a_secret_anybody_could_guess_is_refused_where_the_network_reaches(
    monkeypatch: pytest.MonkeyPatch, name: str, weak: str
) -> None:
    line = refusal(monkeypatch, **{name: weak})
    assert line.startswith(f"{name} is ")
    assert "secrets.token_urlsafe(32)" in line
    assert "\n" not in line
    assert weak not in line


@pytest.mark.control("no default secrets")
def test_a_list_without_what_manuals_publish_would_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "_WELL_KNOWN_SECRETS", frozenset())
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        refusal(monkeypatch, AGENT_SECRET_TOKEN="default-secret-token")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_on_loopback_a_weak_secret_is_only_a_warning(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("HOST", host)
    monkeypatch.setenv("API_TOKEN", "changeme")
    warnings: list[str] = []
    assert load_settings(warn=warnings.append).api_token is not None
    assert [line.split()[0] for line in warnings] == ["API_TOKEN"]


def test_a_good_secret_is_taken_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENT_SECRET_TOKEN", GOOD)
    warnings: list[str] = []
    settings = load_settings(warn=warnings.append)
    assert settings.agent_secret_token is not None
    assert settings.agent_secret_token.get_secret_value() == GOOD
    assert GOOD not in repr(settings)
    assert warnings == []


@pytest.mark.parametrize("secret", ["two words of a secret", "schlüssel-schlüssel-x", "tab\tin-the-middle-of-it"])
def test_a_secret_that_a_header_would_not_carry_is_refused_unseen(monkeypatch: pytest.MonkeyPatch, secret: str) -> None:
    line = refusal(monkeypatch, API_TOKEN=secret)
    assert line == "API_TOKEN cannot be used: it may hold only printable ASCII characters and no spaces."


def test_one_secret_for_both_uses_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENT_SECRET_TOKEN", GOOD)
    monkeypatch.setenv("API_TOKEN", GOOD)
    warnings: list[str] = []
    load_settings(warn=warnings.append)
    assert warnings == [
        "API_TOKEN and AGENT_SECRET_TOKEN are the same, so any agent can use the API: make them differ."
    ]


@pytest.mark.promise("closed")
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7"])
def test_an_open_api_is_refused_where_the_network_reaches(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    line = refusal(monkeypatch, API_AUTH="none", HOST=host)
    assert line.startswith("API_AUTH is 'none', which opens the API to everybody")


@pytest.mark.control("closed")
def test_an_open_api_that_any_host_may_have_would_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "is_loopback", lambda _host: True)
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        refusal(monkeypatch, API_AUTH="none", HOST="192.0.2.7")


def test_an_open_api_is_allowed_on_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_AUTH", "none")
    monkeypatch.setenv("HOST", "127.0.0.1")
    assert load_settings().api_auth == "none"


def test_the_environment_wins_over_the_file_and_empty_is_not_set(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("PORT=1111\nBACKLOG=2222\nHOST=\n")
    monkeypatch.setenv("PORT", "3333")
    monkeypatch.setenv("BACKLOG", "")
    settings = load_settings()
    assert (settings.port, settings.backlog, settings.host) == (3333, 2222, "0.0.0.0")


def test_an_unknown_name_in_the_file_is_a_warning_with_the_name_that_was_meant(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("DATABSE_URL=sqlite:///x.db\nCOLOUR=red\nport=1234\n")
    monkeypatch.setenv("DATABASE_ULR", "ignored")
    warnings: list[str] = []
    assert load_settings(warn=warnings.append).port == 1234
    assert warnings == [
        "DATABSE_URL in .env is not a setting of the control plane and is ignored; did you mean DATABASE_URL?",
        "COLOUR in .env is not a setting of the control plane and is ignored.",
    ]


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"PORT=\xff\xfe\n")
    with pytest.raises(SettingsError, match=r"^\.env cannot be read .*\.$"):
        load_settings()


def test_settings_do_not_change_after_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_settings()
    with pytest.raises(ValueError, match="frozen"):
        monkeypatch.setattr(settings, "port", 1)


def _default(name: str) -> str:
    field = Settings.model_fields[name.lower()]
    if name in {"AGENT_SECRET_TOKEN", "API_TOKEN"}:
        return "made at the first start"
    if name == "LOG_FORMAT":
        return "console on a terminal, else json"
    return "none" if field.default in {(), None} else str(field.default)


@pytest.mark.parametrize("name", NAMES)
def test_the_manual_tells_every_setting_with_its_default_and_bounds(name: str) -> None:
    manual = (ROOT / "docs/settings.md").read_text()
    assert f"\n| `{name}` | {_default(name)} | {allowed_values(name.lower())} | " in manual


def test_the_manual_tells_no_setting_that_does_not_exist() -> None:
    rows = [line for line in (ROOT / "docs/settings.md").read_text().splitlines() if line.startswith("| `")]
    assert len(rows) == len(NAMES)


def test_the_example_file_has_every_setting_and_changes_nothing(tmp_path: Path) -> None:
    example = (ROOT / ".env.example").read_text()
    lines = [line.removeprefix("#") for line in example.splitlines() if line.startswith("#") and line[1:2].isupper()]
    assert sorted(line.partition("=")[0] for line in lines) == NAMES
    (tmp_path / "all.env").write_text("\n".join(lines))
    (tmp_path / "as-it-is.env").write_text(example)
    assert load_settings(tmp_path / "all.env") == load_settings(tmp_path / "as-it-is.env") == load_settings()
