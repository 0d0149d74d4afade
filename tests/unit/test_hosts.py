"""Which Host headers are allowed: names without regard to case and port, wildcards, addresses in any writing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.core import hosts
from control_plane.core.hosts import LOOPBACK, AllowedHosts, canonical_host, is_address

ALLOWED = AllowedHosts(["deploy.example.com", "*.example.org", "192.0.2.7", "2001:db8::/32"])


@pytest.mark.parametrize(
    "value",
    [
        b"deploy.example.com",
        b"Deploy.Example.COM:8443",
        b"deploy.example.com.",
        b"deploy.example.com.:80",
        b"deploy.example.com:",
        b"a.example.org",
        b"a.b.example.org:1",
        b"192.0.2.7",
        b"192.0.2.7:8000",
        b"[2001:db8::1]",
        b"[2001:DB8:0::1]:8000",
    ],
)
def test_these_are_allowed(value: bytes) -> None:
    assert ALLOWED.allow([value])
    assert ALLOWED.allow([value]), "and so they are the second time"


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"evil.example",
        b"deploy.example.com.evil.example",
        b"evil-deploy.example.com",
        b"example.org",
        b".example.org",
        b"evilexample.org",
        b"deploy.example.com@evil.example",
        b"deploy.example.com:80:80",
        b"deploy.example.com:80x",
        b"192.0.2.8",
        b"192.0.2.7.evil.example",
        b"[2001:db9::1]",
        b"127.0.0.1",
        b"\xff",
    ],
)
def test_these_are_not(value: bytes) -> None:
    assert not ALLOWED.allow([value])


def test_one_host_is_needed_and_no_second() -> None:
    assert not ALLOWED.allow([])
    assert not ALLOWED.allow([b"deploy.example.com", b"deploy.example.com"])


@pytest.mark.parametrize(
    ("value", "allowed"),
    [
        (b"localhost:8000", True),
        (b"127.0.0.1", True),
        (b"127.8.8.8", True),
        (b"[::1]:8000", True),
        (b"a.localhost", False),
    ],
)
def test_loopback_has_these_names(value: bytes, allowed: bool) -> None:
    assert AllowedHosts(LOOPBACK).allow([value]) is allowed


def test_what_is_remembered_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "MAX_REMEMBERED", 10)
    allowed = AllowedHosts(["*.example.org"])
    assert all(allowed.allow([b"%d.example.org" % number]) for number in range(50))
    assert len(allowed._remembered) == 10


@pytest.mark.parametrize(
    ("values", "is_one"),
    [([], True), ([b"192.0.2.1:80"], True), ([b"[::1]"], True), ([b"x.example"], False), ([b"1.2.3.4", b"x"], False)],
)
def test_addresses_are_told_from_names(values: list[bytes], is_one: bool) -> None:
    assert is_address(values) is is_one


@given(st.binary(max_size=100))
def test_no_value_raises_or_is_allowed_by_chance(value: bytes) -> None:
    assert not AllowedHosts(["deploy.example.com"]).allow([value])
    is_address([value])


@given(st.text(max_size=40))
def test_a_pattern_is_in_its_last_form_or_refused(text: str) -> None:
    try:
        pattern = canonical_host(text)
    except ValueError:
        return
    assert canonical_host(pattern) == pattern
