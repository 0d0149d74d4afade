"""Settings of the network's side: origins, hosts and proxies in the form that is compared with, or a refusal."""

from pathlib import Path

import pytest

from control_plane.config import load_settings
from tests.support.settings import leave_nothing_set, refusal


@pytest.fixture(autouse=True)
def _own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave_nothing_set(tmp_path, monkeypatch)


def test_origins_are_split_and_brought_into_the_form_that_browsers_send(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALLOWED_ORIGINS", "https://Deploy.example.com:443/, http://[::1]:8080,,http://x:80")
    assert load_settings().allowed_origins == ("https://deploy.example.com", "http://[::1]:8080", "http://x")


@pytest.mark.parametrize(
    "origin", ["*", "example.com", "https://*.example.com", "https://x/path", "ftp://x", "https://u@x", "http://x:y"]
)
def test_what_is_not_an_origin_is_refused(monkeypatch: pytest.MonkeyPatch, origin: str) -> None:
    assert refusal(monkeypatch, ALLOWED_ORIGINS=origin).startswith(f"ALLOWED_ORIGINS is {origin!r}: ")


def test_hosts_are_split_and_brought_into_the_form_that_is_compared_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALLOWED_HOSTS", "Deploy.Example.com:8443, *.example.org.,,[::1]:80, 192.0.2.7:1, 10.0.0.0/8")
    settings = load_settings()
    assert settings.allowed_hosts == ("deploy.example.com", "*.example.org", "::1", "192.0.2.7", "10.0.0.0/8")
    assert settings.served_hosts == settings.allowed_hosts


@pytest.mark.parametrize("host", ["https://x", "x/y", "a..b", "*.*.com", "a.*.com", "x y", "-a.com", "é.com", "*."])
def test_what_is_no_host_is_refused(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    assert refusal(monkeypatch, ALLOWED_HOSTS=host).startswith(f"ALLOWED_HOSTS is {host!r}: {host!r} is not a host")


@pytest.mark.parametrize(
    ("host", "allowed", "served"),
    [
        ("0.0.0.0", "", ()),
        ("192.0.2.7", "", ()),
        ("127.0.0.1", "", ("localhost", "127.0.0.0/8", "::1", "127.0.0.1")),
        ("LOCALHOST", "", ("localhost", "127.0.0.0/8", "::1", "localhost")),
        ("127.0.0.1", "deploy.example.com", ("deploy.example.com",)),
        ("127.0.0.1", "*", ()),
        ("0.0.0.0", "deploy.example.com", ("deploy.example.com",)),
    ],
)
def test_unset_hosts_mean_those_of_loopback_or_any(
    monkeypatch: pytest.MonkeyPatch, host: str, allowed: str, served: tuple[str, ...]
) -> None:
    monkeypatch.setenv("HOST", host)
    monkeypatch.setenv("ALLOWED_HOSTS", allowed)
    assert load_settings().served_hosts == served


def test_proxies_are_split_into_addresses_and_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUSTED_PROXIES", "192.0.2.1, 10.0.0.0/8,,2001:DB8::/32")
    assert load_settings().trusted_proxies == ("192.0.2.1/32", "10.0.0.0/8", "2001:db8::/32")


@pytest.mark.parametrize("proxy", ["*", "proxy.example.com", "10.0.0.1/8", "10.0.0.0/33", "0.0.0.0/0", "::/0"])
def test_proxies_that_would_let_others_in_are_refused(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    assert refusal(monkeypatch, TRUSTED_PROXIES=proxy).startswith(f"TRUSTED_PROXIES is {proxy!r}: {proxy!r} is ")
