"""What the agent is told at start: flags first, then the environment, then defaults.

`__main__` reads them once and passes them down. A value that cannot work is refused here, with one
sentence that names the flag or variable, so that nothing later has to doubt them.
"""

import argparse
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

from agent import __version__
from agent.tls import TlsFileError, TlsFiles, read_tls_files
from control_plane.core import wire

MAX_HEADER_VALUE_CHARACTERS = 255
"""A host name has at most 253 characters (RFC 1035); a header may not carry much more through proxies."""


class SettingsError(ValueError):
    """A flag or an environment variable cannot be used; the text is one line that says what to do."""


@dataclass(frozen=True)
class Settings:
    """The agent's settings, checked. Tokens are kept out of `repr`, and so out of logs; either may be empty."""

    server_url: str
    token: str
    enrollment_token: str
    enroll_only: bool
    hostname: str
    projects_dir: Path
    dry_run: bool
    log_level: str
    tls_files: TlsFiles

    def __repr__(self) -> str:
        return f"Settings(server_url={self.server_url!r}, hostname={self.hostname!r})"


class _Parser(argparse.ArgumentParser):
    """argparse that reports a bad flag as a SettingsError instead of printing its whole usage."""

    def error(self, message: str) -> NoReturn:
        raise SettingsError(f"{message}; `python -m agent --help` lists the flags.")


def read_settings(argv: Sequence[str], environ: Mapping[str, str]) -> Settings:
    """Return the settings in `argv` (without the program's name) and `environ`. Raises SettingsError.

    `--help` and `--version` print and raise SystemExit, as argparse does.
    """
    flags = _parser().parse_args(argv)

    def pick(flag: str | None, variable: str) -> str:
        return (flag if flag is not None else environ.get(variable, "")).strip()

    projects_dir = pick(flags.projects_dir, "PROJECTS_DIR")
    token, enrollment_token = _tokens(
        flags, pick(flags.token, "AGENT_SECRET_TOKEN"), pick(flags.enroll, "AGENT_ENROLLMENT_TOKEN")
    )
    server_url = _server_url(pick(flags.server, "SERVER_URL"))
    return Settings(
        server_url=server_url,
        token=token,
        enrollment_token=enrollment_token,
        enroll_only=flags.enroll_only,
        hostname=_hostname(pick(flags.hostname, "AGENT_HOSTNAME") or socket.gethostname()),
        projects_dir=Path(projects_dir).expanduser() if projects_dir else _default_projects_dir(environ),
        dry_run=flags.dry_run,
        log_level=flags.log_level.upper(),
        tls_files=_tls_files(server_url, lambda name: pick(getattr(flags, name.lower()), name)),
    )


def _parser() -> _Parser:
    parser = _Parser(
        prog="python -m agent",
        description="Runs `docker compose` on this host for an InstaDeploy control plane.",
        allow_abbrev=False,
    )
    parser.add_argument("--server", metavar="URL", help="ws://HOST:PORT/ws or wss://… (SERVER_URL)")
    parser.add_argument(
        "--token",
        help="the control plane's agent token (AGENT_SECRET_TOKEN, which other users of this host cannot see)",
    )
    parser.add_argument(
        "--enroll",
        metavar="TOKEN",
        help="an enrolment token, to get a token of this agent's own, which is kept (AGENT_ENROLLMENT_TOKEN)",
    )
    parser.add_argument(
        "--enroll-only", action="store_true", help="enrol and end: 0 enrolled, 2 refused, 1 not reached"
    )
    parser.add_argument("--hostname", help="this agent's name; default: the host's (AGENT_HOSTNAME)")
    parser.add_argument(
        "--projects-dir",
        metavar="DIR",
        help="where projects are kept (PROJECTS_DIR); default: /var/lib/instadeploy/projects for root, "
        "~/.local/share/instadeploy/projects for others",
    )
    _add_tls_flags(parser)
    parser.add_argument("--dry-run", action="store_true", help="check Compose files and start nothing")
    parser.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    parser.add_argument("--version", action="version", version=__version__)
    return parser


def _add_tls_flags(parser: argparse.ArgumentParser) -> None:
    trusted = "authorities of which the control plane's certificate must be (SERVER_CA_FILE)"
    for flag, variable, told in (
        ("--ca-file", "SERVER_CA_FILE", trusted),
        ("--client-cert", "CLIENT_CERT_FILE", "this agent's own certificate (CLIENT_CERT_FILE)"),
        ("--client-key", "CLIENT_KEY_FILE", "its private key (CLIENT_KEY_FILE)"),
    ):
        parser.add_argument(flag, dest=variable.lower(), metavar="FILE", help=told)


def _tls_files(server_url: str, pick: Callable[[str], str]) -> TlsFiles:
    try:
        return read_tls_files(pick, secure=urlsplit(server_url).scheme == "wss")
    except TlsFileError as error:
        raise SettingsError(str(error)) from None


def _server_url(value: str) -> str:
    if not value:
        raise SettingsError(
            "No control plane is given: use --server ws://HOST:PORT/ws or set the environment variable SERVER_URL."
        )
    try:
        url = urlsplit(value)
        usable = (
            url.scheme in {"ws", "wss"}
            and bool(url.hostname)
            and not url.username
            and (url.port is None or url.port > 0)
        )
    except ValueError:
        usable = False
    if not usable or not value.isprintable() or " " in value:
        raise SettingsError(
            f"--server (SERVER_URL) is {value!r}: give it as ws://HOST:PORT/ws, or wss://HOST/ws behind TLS."
        )
    return url._replace(path=wire.PATH).geturl() if url.path in {"", "/"} else value


def _tokens(flags: argparse.Namespace, token: str, enrollment_token: str) -> tuple[str, str]:
    """Return the two tokens, of which one at most is given: a flag wins over the other one's variable."""
    if token and enrollment_token:
        if (flags.token is None) == (flags.enroll is None):
            raise SettingsError(
                "Both --token (AGENT_SECRET_TOKEN) and --enroll (AGENT_ENROLLMENT_TOKEN) are given: give --token to "
                "use that one for ever, or --enroll to get a token of this agent's own."
            )
        token, enrollment_token = (token, "") if flags.enroll is None else ("", enrollment_token)
    if token and flags.enroll_only:
        raise SettingsError("--enroll-only needs an enrolment token, not --token (AGENT_SECRET_TOKEN): use --enroll.")
    for value, name in (
        (token, "--token (AGENT_SECRET_TOKEN)"),
        (enrollment_token, "--enroll (AGENT_ENROLLMENT_TOKEN)"),
    ):
        if value and not is_token(value):
            raise SettingsError(
                f"{name} holds characters that no HTTP header can carry: copy it again, without spaces or line breaks."
            )
    if token.startswith(wire.ENROLLMENT_TOKEN_PREFIX):
        raise SettingsError("--token (AGENT_SECRET_TOKEN) holds an enrolment token: give it with --enroll instead.")
    if enrollment_token.startswith(wire.AGENT_TOKEN_PREFIX):
        raise SettingsError(
            "--enroll (AGENT_ENROLLMENT_TOKEN) holds an agent's own token: give it with --token instead."
        )
    return token, enrollment_token


def is_token(value: str) -> bool:
    """Whether an HTTP header can carry it as one word."""
    return bool(value) and value.isascii() and value.isprintable() and " " not in value


def _hostname(value: str) -> str:
    if not value.isascii() or not value.isprintable() or len(value) > MAX_HEADER_VALUE_CHARACTERS:
        raise SettingsError(
            f"--hostname (AGENT_HOSTNAME) is {value!r}: use at most {MAX_HEADER_VALUE_CHARACTERS} printable "
            "ASCII characters."
        )
    return value


def _default_projects_dir(environ: Mapping[str, str]) -> Path:
    if os.geteuid() == 0:
        return Path("/var/lib/instadeploy/projects")
    home = environ.get("HOME") or str(Path.home())
    return Path(environ.get("XDG_DATA_HOME") or f"{home}/.local/share") / "instadeploy" / "projects"
