"""TLS of the agent: whom it trusts, what it shows of itself, and what a failure of it means.

`settings` checks the files once at start; `connection` asks for a context at each dial, so that renewed files are used
from the next connection on, and for one sentence when a dial fails.
"""

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_ENDED, _OTHER_NAME, _OTHER_ADDRESS = 10, 62, 64
"""X509_V_ERR_* of OpenSSL's x509_vfy.h."""


class TlsFileError(OSError):
    """A file cannot be used; the text is one line that says what to do."""


@dataclass(frozen=True)
class TlsFiles:
    """Files in PEM form; None where the agent was given none."""

    authorities: Path | None = None
    certificate: Path | None = None
    key: Path | None = None


def read_tls_files(pick: Callable[[str], str], *, secure: bool) -> TlsFiles:
    """Return what `pick` gives by the names of the variables, tried out. Raises TlsFileError.

    `secure`: whether the server's address is `wss://`.
    """
    authorities, certificate, key = (
        Path(value).expanduser() if (value := pick(name)) else None
        for name in ("SERVER_CA_FILE", "CLIENT_CERT_FILE", "CLIENT_KEY_FILE")
    )
    files = TlsFiles(authorities, certificate, key)
    if (certificate is None) != (key is None):
        raise TlsFileError("Give both --client-cert (CLIENT_CERT_FILE) and --client-key (CLIENT_KEY_FILE), or none.")
    if files != TlsFiles() and not secure:
        raise TlsFileError("Certificates are for wss:// only: give the address with --server (SERVER_URL) as wss://….")
    if secure:
        context_for(files)
    return files


def context_for(files: TlsFiles) -> ssl.SSLContext:
    """Return what a dial over TLS needs. Raises TlsFileError."""
    try:
        context = ssl.create_default_context(cafile=files.authorities)
    except (OSError, ssl.SSLError) as error:
        raise _unusable("--ca-file (SERVER_CA_FILE)", files.authorities, error) from None
    if files.certificate is not None:
        try:
            context.load_cert_chain(files.certificate, files.key, password=lambda: "")
        except (OSError, ssl.SSLError) as error:
            pair = f"{files.certificate} and {files.key}"
            names = "--client-cert and --client-key (CLIENT_CERT_FILE, CLIENT_KEY_FILE)"
            raise _unusable(names, pair, error) from None
    return context


def explain_tls(error: Exception, server_url: str, files: TlsFiles) -> str | None:
    """Return one sentence on why there is no connection and what to do, None if TLS is not the reason."""
    if isinstance(error, TlsFileError):
        return str(error).removesuffix(".")
    if isinstance(error, ssl.SSLCertVerificationError):
        return _why_not_trusted(error, server_url)
    # Whoever does not take a certificate cuts the connection, in TLS 1.3 after the handshake has succeeded here.
    cut = isinstance(error, ConnectionResetError) or isinstance(error.__cause__, EOFError)
    if files.certificate is not None and (cut or "ALERT" in str(getattr(error, "reason", ""))):
        return (
            f"{server_url} cut the connection while it began, and may not take this agent's certificate: check that "
            "its authority is in the control plane's TLS_CLIENT_CA, and that it has not ended"
        )
    if not isinstance(error, ssl.SSLError):
        return None
    reason = str(error.reason or error)
    return f"{server_url} speaks no TLS that this agent can use ({reason}): check the address, or use ws:// without TLS"


def _why_not_trusted(error: ssl.SSLCertVerificationError, server_url: str) -> str:
    what = f"The certificate of {server_url}"
    if error.verify_code == _ENDED:
        return f"{what} has ended: renew it on the control plane, and look at this host's clock"
    if error.verify_code in {_OTHER_NAME, _OTHER_ADDRESS}:
        return f"{what} is for another name: dial one that it is for ({error.verify_message.rstrip('.')})"
    return (
        f"{what} is not trusted ({error.verify_message}): give its authority's certificate with --ca-file "
        "(SERVER_CA_FILE)"
    )


def _unusable(setting: str, file: object, error: OSError) -> TlsFileError:
    reason = (error.reason if isinstance(error, ssl.SSLError) else error.strerror) or error
    return TlsFileError(f"{setting} cannot be used: {file} ({reason}).")
