"""Settings: every variable that the control plane reads, its default and its bounds; read once, at start.

`serve.main` calls `load_settings` and passes the result down; nothing below `main` imports this module.
`Settings` checks the form of each value, `load_settings` also checks it against this machine. Each bad value
makes one line for the operator, and no line ever holds a secret.
"""

import difflib
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar, get_args

from annotated_types import Ge, Le
from dotenv import dotenv_values
from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from control_plane.network_settings import NETWORK_ALLOWED, NetworkSettings, is_loopback

DAY_SECONDS = 24 * 60 * 60
MIN_SECRET_LENGTH = 16
MAKE_SECRET: Final = 'python -c "import secrets; print(secrets.token_urlsafe(32))"'  # noqa: S105

_SECRETS: Final = ("agent_secret_token", "api_token")
_SECRET_FORM = re.compile(r"[!-~]+")
"""Printable ASCII without spaces: what survives every client's header encoding unchanged."""

# fmt: off
_WELL_KNOWN_SECRETS = frozenset({
    "admin", "agentsecrettoken", "changeme", "changemechangeme", "changemeinproduction", "defaultsecret",
    "defaultsecrettoken", "password", "replaceme", "secret", "secrettoken", "supersecrettoken", "test",
    "testsecrettoken", "token", "youragentsecrettoken", "yourapitokenhere", "yoursecrettoken", "yoursecrettokenhere"
})
# fmt: on
"""Values that manuals and examples publish, in lower case, without punctuation; the length stops more."""

_ALLOWED: dict[str, str] = {
    "agent_secret_token": f"{MIN_SECRET_LENGTH} or more printable ASCII characters, no spaces",
    "api_token": f"{MIN_SECRET_LENGTH} or more printable ASCII characters, no spaces",
    "database_url": "`sqlite:///` and the path of a file",
    **NETWORK_ALLOWED,
}

Warn = Callable[[str], None]
"""Takes one line, without its newline, that the operator should read."""

Seconds = Annotated[int, Field(ge=1, le=DAY_SECONDS)]
AnySettings = TypeVar("AnySettings", bound="DatabaseSettings")
PingSeconds = Annotated[float, Field(ge=0.1, le=300, allow_inf_nan=False)]


class SettingsError(Exception):
    """Some settings cannot be used; its text is one line for each, to be shown as it is."""


def _default_log_format() -> Literal["console", "json"]:
    return "console" if sys.stderr is not None and sys.stderr.isatty() else "json"


class DatabaseSettings(BaseSettings):
    """Where everything is kept: all that the commands beside the server need to know."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True, hide_input_in_errors=True)

    database_url: str = "sqlite:///./control_plane.db"

    @property
    def database_path(self) -> Path:
        """The database's file, absolute."""
        return Path(str(make_url(self.database_url).database)).absolute()

    @field_validator("database_url")
    @classmethod
    def _check_database_url(cls, value: str) -> str:
        try:
            url = make_url(value)
        except ArgumentError:
            raise ValueError("it must be `sqlite:///` and the path of a file") from None
        if url.get_backend_name() == "postgresql":
            raise ValueError("PostgreSQL is not supported yet; use `sqlite:///` and the path of a file")
        if url.drivername != "sqlite" or url.host or url.username or url.query:
            raise ValueError("it must be `sqlite:///` and the path of a file, with nothing after the path")
        if url.database in {None, "", ":memory:"}:
            raise ValueError(
                "a database in memory would forget accepted deploys at a restart; name a file after `sqlite:///`"
            )
        if str(url.database).endswith(".secrets"):
            raise ValueError("the file must not end in .secrets, the name kept for the secrets beside it")
        return value


class Settings(NetworkSettings, DatabaseSettings):
    """The values, right in form; docs/settings.md tells them. Each is a variable, in capitals."""

    agent_secret_token: SecretStr | None = None
    api_token: SecretStr | None = None
    api_auth: Literal["token", "none"] = "token"
    agent_shared_secret: Literal["on", "off"] = "on"  # noqa: S105 - whether it is used, not what it is
    log_format: Literal["console", "json"] = Field(default_factory=_default_log_format)
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    deploy_timeout_seconds: Seconds = 900
    stop_timeout_seconds: Seconds = 600
    query_timeout_seconds: Seconds = 60
    queue_timeout_seconds: int = Field(default=DAY_SECONDS, ge=1, le=30 * DAY_SECONDS)
    max_queued_jobs_per_agent: int = Field(default=1000, ge=1, le=1_000_000)
    max_body_bytes: int = Field(default=1024 * 1024, ge=1024, le=64 * 1024 * 1024)
    agent_ping_interval_seconds: PingSeconds = 13
    agent_ping_timeout_seconds: PingSeconds = 10
    health_check_interval_seconds: float = Field(default=60, ge=0, le=DAY_SECONDS, allow_inf_nan=False)
    shutdown_grace_seconds: int = Field(default=30, ge=0, le=600)
    retention_days: int = Field(default=90, ge=0, le=36_500)

    @property
    def agents_share_a_secret(self) -> bool:
        """Whether agents without a token of their own may connect with the one secret."""
        return self.agent_shared_secret == "on"  # noqa: S105

    @field_validator("log_level", mode="before")
    @classmethod
    def _fold_case(cls, value: Any) -> Any:
        return value.upper() if isinstance(value, str) else value

    @field_validator(*_SECRETS)
    @classmethod
    def _check_secret_form(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not _SECRET_FORM.fullmatch(value.get_secret_value()):
            raise ValueError("it may hold only printable ASCII characters and no spaces")
        return value


def load_settings(env_file: Path = Path(".env"), warn: Warn = lambda _line: None) -> Settings:
    """Return the settings from the environment and, where it says nothing, from `env_file` (may be missing).

    Creates the database's directory if it is missing. Raises SettingsError, one line for each bad value.
    """
    settings = _read(Settings, env_file)
    _warn_of_unknown_keys(env_file, warn)
    _check_database_file(settings.database_path)
    _check_exposure(settings, warn)
    return settings


def load_database_path(env_file: Path = Path(".env")) -> Path:
    """Return where the database is, whatever the other settings are; makes nothing. Raises SettingsError."""
    return _read(DatabaseSettings, env_file).database_path


def _read(kind: type[AnySettings], env_file: Path) -> AnySettings:
    try:
        return kind(_env_file=env_file)
    except ValidationError as error:
        raise SettingsError("\n".join(_line_for(problem) for problem in error.errors())) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{env_file} cannot be read ({error}): correct it or take it away.") from None


def allowed_values(name: str) -> str:
    """Return what the field `name` may be, as an error and docs/settings.md say it."""
    if name in _ALLOWED:
        return _ALLOWED[name]
    field = Settings.model_fields[name]
    bounds: dict[type, Any] = {type(rule): rule for rule in field.metadata}
    if Ge in bounds:
        kind = "a whole number" if field.annotation is int else "a number"
        return f"{kind} from {bounds[Ge].ge} to {bounds[Le].le}"
    *some, last = get_args(field.annotation)
    return f"{', '.join(some)} or {last}"


def _line_for(problem: ErrorDetails) -> str:
    name = str(problem["loc"][0])
    own_words = problem["type"] == "value_error"
    reason = str(problem["ctx"]["error"]) if own_words else f"it must be {allowed_values(name)}"
    # A database's URL may hold a password.
    hidden = name in {*_SECRETS, "database_url"}
    shown = "" if hidden else f" is {_shortened(str(problem['input']))!r}"
    return f"{name.upper()}{shown or ' cannot be used'}: {reason}."


def _shortened(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."


def _warn_of_unknown_keys(env_file: Path, warn: Warn) -> None:
    if not env_file.is_file():
        return
    known = [name.upper() for name in Settings.model_fields]
    for key in dotenv_values(env_file):
        if key.upper() in known:
            continue
        close = difflib.get_close_matches(key.upper(), known, n=1, cutoff=0.75)
        hint = f"; did you mean {close[0]}?" if close else "."
        warn(f"{key} in {env_file} is not a setting of the control plane and is ignored{hint}")


def _check_database_file(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(
            f"DATABASE_URL: the directory {path.parent} cannot be made ({error.strerror}); name another."
        ) from None
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise SettingsError(f"DATABASE_URL: the directory {path.parent} cannot be written to by this user.")
    if path.exists() and not (path.is_file() and os.access(path, os.R_OK | os.W_OK)):
        raise SettingsError(f"DATABASE_URL: {path} is not a file that this user can read and write.")


def _check_exposure(settings: Settings, warn: Warn) -> None:
    """Refuse what strangers on the network could guess or need not know; on loopback only warn."""
    try:
        exposed = not is_loopback(settings.host)
    except (OSError, UnicodeError):
        raise SettingsError(f"HOST is {_shortened(settings.host)!r}: it must be {_ALLOWED['host']}.") from None
    if settings.api_auth == "none" and exposed:
        raise SettingsError(
            f"API_AUTH is 'none', which opens the API to everybody who can reach HOST {settings.host}: "
            "set HOST=127.0.0.1 or take API_AUTH away."
        )
    weak = [line for name in _SECRETS if (line := _weakness(name, getattr(settings, name)))]
    if weak and exposed:
        raise SettingsError("\n".join(weak))
    for line in weak:
        warn(line)
    if settings.api_token and settings.api_token == settings.agent_secret_token:
        warn("API_TOKEN and AGENT_SECRET_TOKEN are the same, so any agent can use the API: make them differ.")


def _weakness(name: str, secret: SecretStr | None) -> str | None:
    if secret is None:
        return None
    value = secret.get_secret_value()
    if re.sub(r"[^a-z0-9]", "", value.lower()) in _WELL_KNOWN_SECRETS or len(set(value)) < 6:
        fault = "is a value that anybody would guess"
    elif len(value) < MIN_SECRET_LENGTH:
        fault = f"is shorter than {MIN_SECRET_LENGTH} characters"
    else:
        return None
    return f"{name.upper()} {fault}: make one with `{MAKE_SECRET}`, or leave it unset to have one made."
