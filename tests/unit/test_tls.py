"""Certificates that cannot be used are refused in one line; good ones are taken while the server runs, and watched."""

import ssl
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from control_plane.config import Settings, SettingsError
from control_plane.tls import REMIND_EVERY_SECONDS, Tls, TlsFiles, load_tls
from control_plane.ws.certificates import names_of
from tests.support.certificates import Authority, Pair, encrypted

DAY = 24 * 3600.0


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def good(authority: Authority) -> Pair:
    return authority.sign("good")


def refused(certificate: Path | None, key: Path | None, client_ca: Path | None = None) -> str:
    settings = Settings.model_construct(tls_certfile=certificate, tls_keyfile=key, tls_client_ca=client_ca)
    with pytest.raises(SettingsError) as caught:
        load_tls(settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def subject_shown(tls: Tls, authority: Authority) -> Any:
    """Return the subject of the certificate that a client is shown, which names no server."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = authority.client()
    context.check_hostname = False
    server = tls.context.wrap_bio(to_server, to_client, server_side=True)
    client = context.wrap_bio(to_client, to_server)
    for _ in range(3):
        for end in (client, server):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    seen: Any = client.getpeercert()
    return dict(part[0] for part in seen["subject"])["commonName"]


def test_nothing_set_is_plain_http() -> None:
    assert load_tls(Settings.model_construct(tls_certfile=None, tls_keyfile=None, tls_client_ca=None)) is None


def test_one_of_the_two_files_alone_is_refused(good: Pair) -> None:
    assert refused(good.certificate, None).startswith("TLS_CERTFILE is set, and TLS needs both")
    assert refused(None, good.key).startswith("TLS_KEYFILE is set, and TLS needs both")
    assert refused(None, None, good.certificate).startswith("TLS_CLIENT_CA is set, and TLS needs both")


def test_files_that_are_not_what_they_should_be_are_refused(good: Pair, tmp_path: Path) -> None:
    nothing, text = tmp_path / "nothing.pem", tmp_path / "text.pem"
    text.write_text("-----BEGIN CERTIFICATE-----\nxxxx\n-----END CERTIFICATE-----\n")
    assert refused(nothing, good.key) == (
        f"TLS_CERTFILE: {nothing} cannot be read (No such file or directory): name a file that this user may read."
    )
    assert refused(good.certificate, nothing).startswith(f"TLS_KEYFILE: {nothing} cannot be read")
    assert refused(tmp_path, good.key).startswith(f"TLS_CERTFILE: {tmp_path} cannot be read (Is a directory)")
    assert refused(good.key, good.certificate) == f"TLS_CERTFILE: {good.key} holds no certificate in PEM form."
    assert refused(good.certificate, good.certificate).endswith("holds no private key in PEM form.")
    assert refused(text, good.key).startswith(f"TLS_CERTFILE: {text} and {good.key} cannot be used (")
    assert refused(good.certificate, good.key, text).startswith(f"TLS_CLIENT_CA: {text} cannot be used")
    assert refused(good.certificate, good.key, nothing).startswith(f"TLS_CLIENT_CA: {nothing} cannot be read")


def test_the_key_of_another_certificate_is_refused(authority: Authority, good: Pair) -> None:
    other = authority.sign("other")
    line = refused(good.certificate, other.key)
    assert line == f"TLS_KEYFILE: {other.key} is not the key of the certificate in {good.certificate}."


def test_a_key_under_a_password_is_refused(good: Pair) -> None:
    assert "is encrypted, and nobody is there to say its password" in refused(good.certificate, encrypted(good).key)


def test_a_certificate_that_is_not_of_today_is_refused(good: Pair) -> None:
    ends_at = Tls(TlsFiles(good.certificate, good.key)).ends_at
    with pytest.raises(SettingsError, match=r"ended 20\d\d-\d\d-\d\d \d\d:\d\d UTC: renew it\.$"):
        Tls(TlsFiles(good.certificate, good.key), lambda: ends_at)
    with pytest.raises(SettingsError, match=r"begins .*clock"):
        Tls(TlsFiles(good.certificate, good.key), lambda: ends_at - 40 * DAY)


def test_a_certificate_that_is_no_servers_is_refused(authority: Authority) -> None:
    pair = authority.sign("client-only", names=("DNS:x\nextendedKeyUsage=clientAuth",))
    assert "no server can show" in refused(pair.certificate, pair.key)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def looks(tls: Tls, count: int = 3) -> list[str]:
    """Return the events of some looks."""
    with capture_logs() as logs:
        for _ in range(count):
            await tls.look()
    return [str(line["event"]) for line in logs]


@pytest.fixture
def in_use(authority: Authority, tmp_path: Path) -> Pair:
    pair = authority.sign("first")
    copies = Pair(tmp_path / "server.pem", tmp_path / "server.key")
    pair.put_over(copies)
    return copies


async def test_a_new_pair_is_taken_once_it_is_whole(authority: Authority, in_use: Pair) -> None:
    tls = Tls(TlsFiles(in_use.certificate, in_use.key))
    assert await looks(tls) == []
    assert subject_shown(tls, authority) == "first"
    second = authority.sign("second", days=20)
    ends_at = tls.ends_at
    in_use.certificate.write_bytes(second.certificate.read_bytes())
    assert await looks(tls, 1) == [], "what was just written may be half of it"
    second.put_over(in_use)
    assert await looks(tls) == ["certificate_taken"]
    assert subject_shown(tls, authority) == "second"
    assert tls.ends_at < ends_at


async def test_a_bad_pair_is_told_once_and_leaves_the_old_in_use(authority: Authority, in_use: Pair) -> None:
    tls = Tls(TlsFiles(in_use.certificate, in_use.key))
    authority.sign("third").put_over(Pair(in_use.certificate, in_use.key.with_name("elsewhere.key")))
    assert await looks(tls, 5) == ["certificate_not_taken"]
    assert subject_shown(tls, authority) == "first"
    in_use.certificate.unlink()
    assert await looks(tls, 5) == ["certificate_not_taken"]
    authority.sign("fourth").put_over(in_use)
    assert await looks(tls, 5) == ["certificate_taken"]
    assert subject_shown(tls, authority) == "fourth"


async def test_asked_to_it_reads_the_files_at_once(authority: Authority, in_use: Pair) -> None:
    tls = Tls(TlsFiles(in_use.certificate, in_use.key))
    authority.sign("fifth").put_over(in_use)
    tls.ask_reload()
    assert await looks(tls, 1) == ["certificate_taken"]
    assert subject_shown(tls, authority) == "fifth"
    assert await looks(tls) == []


async def test_a_certificate_that_is_about_to_end_is_told_once_a_day(good: Pair) -> None:
    clock = Clock()
    clock.now = Tls(TlsFiles(good.certificate, good.key)).ends_at - 14 * DAY - 1
    tls = Tls(TlsFiles(good.certificate, good.key), clock)
    assert await looks(tls) == []
    clock.now += 2
    assert await looks(tls) == ["certificate_ends"]
    clock.now += REMIND_EVERY_SECONDS
    assert await looks(tls) == ["certificate_ends"]
    clock.now = tls.ends_at
    with capture_logs() as logs:
        await tls.look()
    assert [(line["event"], line["log_level"], line["days_left"]) for line in logs] == [
        ("certificate_ends", "error", 0)
    ]


def test_the_names_of_a_certificate_are_its_common_and_its_dns_names(authority: Authority) -> None:
    names = ("DNS:web-1", "DNS:*.example.com", "IP:127.0.0.1", "email:a@b.c")
    pair = authority.sign("host", names=names)
    described = ssl._ssl._test_decode_cert(str(pair.certificate))  # type: ignore[attr-defined]
    assert names_of(described) == {"host", "web-1", "*.example.com"}
    assert names_of({}) == set()
