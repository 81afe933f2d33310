"""Who may connect is said in addresses, networks and names; what cannot be meant is refused."""

from __future__ import annotations

import ipaddress
import socket

import pytest

from vampires import allowed_peers
from vampires.allowed_peers import LOOPBACK, check_listen, parse_allowed, to_core


def listed(*texts: str) -> list[str]:
    return [str(network) for network in parse_allowed(texts)]


def test_addresses_and_networks_are_taken_as_written_each_once() -> None:
    assert listed(" 10.20.0.5", "10.20.0.0/24", "fd00::5", "fd00::/64", "10.20.0.5/32") == [
        "10.20.0.5/32",
        "10.20.0.0/24",
        "fd00::5/128",
        "fd00::/64",
    ]
    assert listed() == []


def test_an_ipv4_address_within_ipv6_is_that_address() -> None:
    assert listed("::ffff:10.20.0.5", "::ffff:10.0.0.0/104") == ["10.20.0.5/32", "10.0.0.0/8"]


def test_a_host_name_stands_for_all_its_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = [
        (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("fe80::7%eth0", 0, 0, 2)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.20.0.7", 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.20.0.7", 0)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answer)
    assert listed("scexao5") == ["fe80::7/128", "10.20.0.7/32"]
    assert check_listen("scexao5", LOOPBACK) == "10.20.0.7"


def test_the_name_localhost_is_this_computer() -> None:
    assert ipaddress.ip_address(check_listen("localhost", [])).is_loopback
    assert set(parse_allowed(["localhost"])) <= {
        ipaddress.ip_network("127.0.0.1"),
        ipaddress.ip_network("::1"),
    }


@pytest.mark.parametrize(
    "text",
    [
        *("", "10", "10.1", "0x7f000001", "127.0.0.1.", "10.20.0.5:9911", "[::1]:9911", "*"),
        *("10.20.0.0/33", "10.20.0.256/24", "/24", "host/24", "10.20.0.5/", "fd00::/129"),
        *("a b", "no-such-host.invalid", "x" * 70, "..", "ü" * 70),
    ],
)
def test_what_is_no_peer_is_refused_in_one_line_that_names_it(text: str) -> None:
    with pytest.raises(ValueError) as refused:
        parse_allowed(["10.20.0.5", text])
    message = str(refused.value)
    assert repr(text)[1:-1] in message and "\n" not in message


def test_an_address_with_the_length_of_a_network_is_a_slip() -> None:
    with pytest.raises(ValueError, match=r"give 10\.20\.0\.0/24 .*, or 10\.20\.0\.5 for"):
        parse_allowed(["10.20.0.5/24"])


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1"])
def test_this_computer_alone_may_always_be_listened_to(address: str) -> None:
    assert check_listen(address, []) == address.removeprefix("::ffff:")


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "*", "10.20.0.5", "fd00::5"])
def test_listening_beyond_this_computer_needs_allowed_peers(address: str) -> None:
    with pytest.raises(ValueError, match="--allow"):
        check_listen(address, [])
    expected = "0.0.0.0" if address == "*" else address
    assert check_listen(address, parse_allowed(["10.20.0.5"])) == expected


@pytest.mark.parametrize("address", ["", "10", "eth 0", "no-such-host.invalid", "[::1]"])
def test_what_is_no_address_cannot_be_listened_on(address: str) -> None:
    with pytest.raises(ValueError):
        check_listen(address, LOOPBACK)


def test_the_core_is_given_ipv6_with_ipv4_behind_its_prefix() -> None:
    assert to_core(parse_allowed(["10.20.0.0/24", "fd00::/64", "0.0.0.0/0", "::/0"])) == [
        (bytes(10) + b"\xff\xff\x0a\x14\0\0", 120),
        (b"\xfd" + bytes(15), 64),
        (bytes(10) + b"\xff\xff" + bytes(4), 96),
        (bytes(16), 0),
    ]
    assert to_core(LOOPBACK) == [
        (bytes(10) + b"\xff\xff\x7f\0\0\0", 104),
        (bytes(15) + b"\1", 128),
    ]


def test_loopback_is_what_its_name_says() -> None:
    assert all(network.is_loopback for network in allowed_peers.LOOPBACK)
