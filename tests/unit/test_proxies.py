"""What a peer says of its address is believed of named proxies alone, whatever is in the headers."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.core.proxies import MAX_HOPS, TrustedProxies

PROXIES = TrustedProxies(["192.0.2.1", "10.0.0.0/8", "2001:db8:f::/48"])


def resolved(peer: str, *forwarded: str, proto: str = "", kind: str = "http") -> tuple[str, str]:
    """Return the address and the scheme of a request over HTTP from `peer` with these headers."""
    headers = [(b"x-forwarded-for", value.encode("latin-1", "replace")) for value in forwarded]
    headers += [(b"x-forwarded-proto", proto.encode())] if proto else []
    scheme = "ws" if kind == "websocket" else "http"
    scope: dict[str, Any] = {"type": kind, "client": (peer, 4711), "scheme": scheme, "headers": headers}
    PROXIES.resolve(scope)
    return scope["client"][0], scope["scheme"]


@pytest.mark.parametrize("peer", ["203.0.113.9", "192.0.2.2", "2001:db8:e::1", "", "unix:"])
def test_others_are_who_their_connection_says(peer: str) -> None:
    assert resolved(peer, "198.51.100.7", proto="https") == (peer, "http")


@pytest.mark.parametrize(
    ("forwarded", "address"),
    [
        ("198.51.100.7", "198.51.100.7"),
        ("1.2.3.4, 198.51.100.7", "198.51.100.7"),
        ("1.2.3.4,198.51.100.7 , 10.1.2.3", "198.51.100.7"),
        ("198.51.100.7, 10.1.2.3, 192.0.2.1", "198.51.100.7"),
        ("10.0.0.7, 10.0.0.8", "10.0.0.7"),
        ("198.51.100.7:51234", "198.51.100.7"),
        ("2001:db8::7", "2001:db8::7"),
        ("[2001:db8::7]:51234", "2001:db8::7"),
        ("[2001:db8::7]", "2001:db8::7"),
        ("::ffff:198.51.100.7", "198.51.100.7"),
        ("198.51.100.7, 2001:db8:f::1", "198.51.100.7"),
    ],
)
def test_of_a_named_proxy_the_first_address_from_the_right_that_is_no_proxy_counts(
    forwarded: str, address: str
) -> None:
    assert resolved("192.0.2.1", forwarded)[0] == address
    assert resolved("::ffff:192.0.2.1", *forwarded.split(","))[0] == address


@pytest.mark.parametrize(
    "forwarded", ["", " ", ",", "unknown", "198.51.100.7,", "198.51.100.7, x", "300.1.1.1", "[]", "a\x00b", "é", "1:2"]
)
def test_what_is_no_address_ends_the_reading(forwarded: str) -> None:
    assert resolved("192.0.2.1", forwarded)[0] == "192.0.2.1"


def test_a_proxy_that_is_known_before_nonsense_is_the_caller() -> None:
    assert resolved("192.0.2.1", "nonsense, 10.0.0.9")[0] == "10.0.0.9"


def test_a_chain_without_end_is_read_for_a_few_steps_only() -> None:
    chain = [f"10.0.{n // 256}.{n % 256}" for n in range(20_000)]
    assert resolved("192.0.2.1", ", ".join(chain))[0] == chain[-MAX_HOPS]


@pytest.mark.parametrize(
    ("proto", "http", "websocket"),
    [
        ("https", "https", "wss"),
        ("HTTPS", "https", "wss"),
        ("wss", "https", "wss"),
        ("http", "http", "ws"),
        ("http, https", "https", "wss"),
        ("gopher", "http", "ws"),
        ("", "http", "ws"),
    ],
)
def test_the_scheme_is_what_the_nearest_proxy_saw(proto: str, http: str, websocket: str) -> None:
    assert resolved("192.0.2.1", proto=proto)[1] == http
    assert resolved("192.0.2.1", proto=proto, kind="websocket")[1] == websocket


def test_a_connection_without_an_address_is_left_alone() -> None:
    scope: dict[str, Any] = {"type": "http", "client": None, "headers": [(b"x-forwarded-for", b"198.51.100.7")]}
    PROXIES.resolve(scope)
    assert scope["client"] is None


@given(st.text(st.characters(max_codepoint=0xFF)) | st.text("0123456789.:[], abcdef"))
def test_no_text_raises(text: str) -> None:
    assert resolved("192.0.2.1", text, proto="https")[1] == "https"
    assert resolved("203.0.113.9", text)[0] == "203.0.113.9"
