"""The agent's certificates: what is refused at its start, in one line, and how failures are told."""

import ssl
from pathlib import Path

import pytest

from agent import settings
from agent.tls import TlsFiles, context_for, explain_tls
from tests.support.certificates import Authority, encrypted

FLAGS = ["--server", "wss://cp:8000/ws", "--token", "t0ken", "--hostname", "h"]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def refused(*flags: object) -> str:
    with pytest.raises(settings.SettingsError) as caught:
        settings.read_settings([*FLAGS, *map(str, flags)], {})
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_good_files_are_taken_from_flags_and_from_the_environment(authority: Authority) -> None:
    pair = authority.sign("h")
    files = TlsFiles(authority.certificate, pair.certificate, pair.key)
    flags = [
        "--ca-file",
        str(files.authorities),
        "--client-cert",
        str(files.certificate),
        "--client-key",
        str(files.key),
    ]
    assert settings.read_settings([*FLAGS, *flags], {}).tls_files == files
    environ = {"SERVER_CA_FILE": str(files.authorities)}
    environ |= {"CLIENT_CERT_FILE": str(files.certificate), "CLIENT_KEY_FILE": str(files.key)}
    assert settings.read_settings(FLAGS, environ).tls_files == files


def test_with_an_authority_of_its_own_it_trusts_no_other(authority: Authority) -> None:
    assert context_for(TlsFiles(authority.certificate)).cert_store_stats()["x509"] == 1
    assert context_for(TlsFiles()).verify_mode is ssl.CERT_REQUIRED
    assert context_for(TlsFiles()).check_hostname


def test_files_that_cannot_be_used_are_refused(authority: Authority, tmp_path: Path) -> None:
    pair, other = authority.sign("h"), authority.sign("other")
    nothing, text = tmp_path / "nothing", tmp_path / "text"
    text.write_text("no certificate")
    assert refused("--ca-file", nothing) == (
        f"--ca-file (SERVER_CA_FILE) cannot be used: {nothing} (No such file or directory)."
    )
    assert refused("--ca-file", text).startswith(f"--ca-file (SERVER_CA_FILE) cannot be used: {text} (")
    assert "both --client-cert" in refused("--client-cert", pair.certificate)
    assert "both --client-cert" in refused("--client-key", pair.key)
    for key in (other.key, nothing, text, encrypted(pair).key):
        line = refused("--client-cert", pair.certificate, "--client-key", key)
        assert line.startswith("--client-cert and --client-key (CLIENT_CERT_FILE, CLIENT_KEY_FILE) cannot be used: ")


def test_certificates_without_tls_are_refused(authority: Authority) -> None:
    assert "wss:// only" in refused("--server", "ws://cp", "--ca-file", authority.certificate)


def test_a_servers_certificate_that_has_ended_is_told_as_that() -> None:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_code, error.verify_message = 10, "certificate has expired"
    assert "has ended: renew it" in str(explain_tls(error, "wss://cp/ws", TlsFiles()))


def test_failures_of_other_kinds_are_told_by_others() -> None:
    shows = TlsFiles(certificate=Path("own.pem"), key=Path("own.key"))
    assert explain_tls(OSError("no route"), "wss://cp/ws", shows) is None
    assert explain_tls(TimeoutError(), "wss://cp/ws", shows) is None
    assert explain_tls(ConnectionResetError(), "wss://cp/ws", TlsFiles()) is None
