"""Which address a request comes from, and which word about it is believed."""

from __future__ import annotations

import pytest

from companion.serving.proxies import TrustedProxies, address_key

OURS = TrustedProxies(["10.0.0.0/8", "2001:db8:1::/48"])


def asked(peer, *forwarded):
    headers = [(b"x-forwarded-for", line.encode("latin-1")) for line in forwarded]
    return {"client": (peer, 4711) if peer else None, "headers": headers}


def client(proxies, peer, *forwarded):
    address = proxies.client_of(asked(peer, *forwarded))
    return None if address is None else str(address)


def test_without_proxies_the_header_is_never_believed():
    assert client(TrustedProxies(), "127.0.0.1", "203.0.113.9") == "127.0.0.1"
    assert client(OURS, "198.51.100.7", "203.0.113.9") == "198.51.100.7"


def test_the_word_of_a_proxy_of_ours_is_taken():
    assert client(OURS, "10.0.0.1", "203.0.113.9") == "203.0.113.9"


def test_of_several_hops_the_last_that_is_not_ours_is_the_client():
    assert client(OURS, "10.0.0.1", "6.6.6.6, 203.0.113.9, 10.0.0.2") == "203.0.113.9"


def test_several_headers_are_one_list():
    assert client(OURS, "10.0.0.1", "6.6.6.6", "203.0.113.9", "10.0.0.2") == "203.0.113.9"


def test_a_request_from_a_proxy_itself_has_its_address():
    assert client(OURS, "10.0.0.1") == "10.0.0.1"
    assert client(OURS, "10.0.0.1", "10.0.0.3") == "10.0.0.3"


@pytest.mark.parametrize(
    "nonsense", ["", "unknown", "_hidden", "999.1.1.1", "\x00", ",", "a" * 500]
)
def test_a_header_that_cannot_be_read_is_believed_as_far_as_it_can(nonsense):
    assert client(OURS, "10.0.0.1", nonsense) == "10.0.0.1"
    assert client(OURS, "10.0.0.1", f"6.6.6.6, {nonsense}, 10.0.0.2") == "10.0.0.2"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("203.0.113.9:4711", "203.0.113.9"),
        (" 203.0.113.9 ", "203.0.113.9"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:4711", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
    ],
)
def test_addresses_are_read_however_they_are_written(written, meant):
    assert client(OURS, "10.0.0.1", written) == meant


def test_a_proxy_is_known_by_either_notation():
    assert client(OURS, "::ffff:10.0.0.1", "203.0.113.9") == "203.0.113.9"
    assert client(OURS, "2001:db8:1::5", "203.0.113.9") == "203.0.113.9"


def test_a_peer_without_an_address_is_believed_only_where_that_is_said():
    assert client(OURS, None, "203.0.113.9") is None
    assert client(TrustedProxies(unix_socket=True), None, "203.0.113.9") == "203.0.113.9"


def test_a_peer_that_is_a_name_is_nobody():
    for proxies in (OURS, TrustedProxies(unix_socket=True)):
        assert client(proxies, "testclient", "203.0.113.9") is None


@pytest.mark.parametrize("network", ["10.0.0.1/8", "proxy.example", ""])
def test_a_network_that_is_none_is_refused(network):
    with pytest.raises(ValueError):
        TrustedProxies([network])


def test_one_customer_has_one_key_however_many_addresses():
    keys = {address_key(OURS.client_of(asked(f"2001:db8:2:3::{n:x}"))) for n in range(1, 100)}
    assert keys == {"2001:db8:2:3::/64"}
    assert address_key(OURS.client_of(asked("203.0.113.9"))) == "203.0.113.9"
    assert address_key(None) == "unknown"
