"""TLS: the certificate that the server shows, and who may show one to it; from files that may change while it runs.

`serve` loads it and gives `context` to the listener; `main` has `look` called every few seconds. Each handshake takes
what is current, so that a new certificate drops no connection. Invariant: a pair is tried out before anybody is shown
it, and a bad one leaves the old in use.
"""

import asyncio
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import structlog

from control_plane.config import Settings, SettingsError

LOOK_SECONDS = 2.0
REMIND_BEFORE_SECONDS = 14 * 24 * 3600.0
REMIND_EVERY_SECONDS = 24 * 3600.0
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Of TLS 1.2: those with forward secrecy and authenticated encryption (RFC 9325, section 4.2). Those of 1.3 all are."""

_NO_CHECK_TIME = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME of OpenSSL, which Python does not name."""

log = structlog.get_logger()


@dataclass(frozen=True)
class TlsFiles:
    """Where everything is, in PEM."""

    certificate: Path
    key: Path
    client_ca: Path | None = None

    def stamps(self) -> tuple[tuple[int, int, int] | None, ...]:
        """Return what changes when a file is written or replaced."""
        return tuple(_stamp(path) for path in (self.certificate, self.key, self.client_ca) if path is not None)


def load_tls(settings: Settings) -> "Tls | None":
    """Return what the settings ask for, None if that is plain HTTP. Raises SettingsError, one line."""
    certificate, key, client_ca = settings.tls_certfile, settings.tls_keyfile, settings.tls_client_ca
    if certificate is None or key is None:
        for name, value in {"TLS_CERTFILE": certificate, "TLS_KEYFILE": key, "TLS_CLIENT_CA": client_ca}.items():
            if value is not None:
                raise SettingsError(
                    f"{name} is set, and TLS needs both TLS_CERTFILE and TLS_KEYFILE: set both or none."
                )
        return None
    return Tls(TlsFiles(certificate, key, client_ca))


class Tls:
    """The certificate in use. Made with files that cannot be used it raises SettingsError."""

    def __init__(self, files: TlsFiles, clock: Callable[[], float] = time.time) -> None:
        self._files = files
        self._clock = clock
        self._tried = self._last = files.stamps()
        self._asked = False
        self._reminded_at = -REMIND_EVERY_SECONDS
        self._current, self.ends_at = _load(files, clock())
        self.context = _new_context(files)
        """Given to the listener for as long as it lives."""
        # Called for every handshake, also for one that names no server.
        self.context.sni_callback = self._show_current

    @property
    def asks_clients(self) -> bool:
        """Whether agents must show a certificate."""
        return self._files.client_ca is not None

    def ask_reload(self) -> None:
        """Have the files read again at the next look, changed or not; safe to be called by a signal's handler."""
        self._asked = True

    async def look(self) -> None:
        """Read the files again if they were changed; say when the certificate is about to end."""
        stamps = await asyncio.to_thread(self._files.stamps)
        # Certificate and key are two files: what still changes is left for the next look.
        if self._asked or (stamps != self._tried and stamps == self._last):
            self._asked, self._tried = False, stamps
            await self._reload()
        self._last = stamps
        self._remind()

    async def _reload(self) -> None:
        try:
            self._current, self.ends_at = await asyncio.to_thread(_load, self._files, self._clock())
        except SettingsError as error:
            # What is wrong is for the operator and in one line; a traceback says nothing more.
            log.error("certificate_not_taken", error=str(error), in_use_until=_shown(self.ends_at))  # noqa: TRY400
            return
        self._reminded_at = -REMIND_EVERY_SECONDS
        log.info("certificate_taken", ends_at=_shown(self.ends_at))

    def _remind(self) -> None:
        now = self._clock()
        left = self.ends_at - now
        if left < REMIND_BEFORE_SECONDS and now - self._reminded_at >= REMIND_EVERY_SECONDS:
            self._reminded_at = now
            level = log.warning if left > 0 else log.error
            level("certificate_ends", ends_at=_shown(self.ends_at), days_left=int(left // (24 * 3600)))

    def _show_current(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = self._current


def _load(files: TlsFiles, now: float) -> tuple[ssl.SSLContext, float]:
    """Return a context with what is in the files, and when the certificate ends. Raises SettingsError, one line."""
    context = _new_context(files)
    begins_at, ends_at = _validity(context, files)
    if now >= ends_at:
        raise SettingsError(f"TLS_CERTFILE: the certificate in {files.certificate} ended {_shown(ends_at)}: renew it.")
    if now < begins_at:
        raise SettingsError(
            f"TLS_CERTFILE: the certificate in {files.certificate} begins {_shown(begins_at)}: look at this machine's "
            "clock."
        )
    return context, ends_at


def _new_context(files: TlsFiles) -> ssl.SSLContext:
    _check_form("TLS_CERTFILE", files.certificate, "-----BEGIN CERTIFICATE-----", "certificate")
    _check_form("TLS_KEYFILE", files.key, "PRIVATE KEY-----", "private key")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(files.certificate, files.key, password=lambda: _refuse_password(files.key))
    except ssl.SSLError as error:
        raise SettingsError(_why_not_loaded(files, error)) from None
    if files.client_ca is not None:
        _ask_for_certificates(context, files.client_ca)
    return context


def _ask_for_certificates(context: ssl.SSLContext, authority: Path) -> None:
    _check_form("TLS_CLIENT_CA", authority, "-----BEGIN CERTIFICATE-----", "certificate")
    try:
        context.load_verify_locations(authority)
    except ssl.SSLError as error:
        raise SettingsError(f"TLS_CLIENT_CA: {authority} cannot be used ({error.reason}).") from None
    # Optional, for callers of the REST API need none: `ws.certificates` wants one of agents.
    context.verify_mode = ssl.CERT_OPTIONAL
    # A session that is resumed shows no certificate anew, and would outlive its authority.
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0


def _check_form(setting: str, path: Path, mark: str, what: str) -> None:
    try:
        text = path.read_bytes()
    except OSError as error:
        raise SettingsError(
            f"{setting}: {path} cannot be read ({error.strerror}): name a file that this user may read."
        ) from None
    if mark.encode() not in text:
        raise SettingsError(f"{setting}: {path} holds no {what} in PEM form.")


def _refuse_password(key: Path) -> str:
    raise SettingsError(
        f"TLS_KEYFILE: {key} is encrypted, and nobody is there to say its password: decrypt it with `openssl pkey`, "
        "and keep it readable for this user alone."
    )


def _why_not_loaded(files: TlsFiles, error: ssl.SSLError) -> str:
    if error.reason == "KEY_VALUES_MISMATCH":
        return f"TLS_KEYFILE: {files.key} is not the key of the certificate in {files.certificate}."
    return f"TLS_CERTFILE: {files.certificate} and {files.key} cannot be used ({error.reason or error})."


def _validity(context: ssl.SSLContext, files: TlsFiles) -> tuple[float, float]:
    """Return from when until when the certificate is valid, as a client learns it in a handshake in memory."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.load_verify_locations(files.certificate)
    # The certificate stands for itself: who signed it is for clients to judge, and its times are judged by the caller.
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | ssl.VerifyFlags(_NO_CHECK_TIME)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (context.wrap_bio(to_server, to_client, server_side=True), client.wrap_bio(to_client, to_server))
    try:
        for _ in range(3):
            for end in reversed(ends):
                try:
                    end.do_handshake()
                except ssl.SSLWantReadError:
                    continue
        seen = ends[1].getpeercert() or {}
    except (ssl.SSLError, ValueError) as error:
        reason = getattr(error, "verify_message", "") or getattr(error, "reason", "") or error
        raise SettingsError(f"TLS_CERTFILE: no server can show {files.certificate} to anybody ({reason}).") from None
    return ssl.cert_time_to_seconds(str(seen["notBefore"])), ssl.cert_time_to_seconds(str(seen["notAfter"]))


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _shown(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M UTC")
