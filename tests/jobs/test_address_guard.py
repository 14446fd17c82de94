"""The guard of addresses: what leads into our own network is refused, however it is written."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Sequence
from ipaddress import ip_address, ip_network

import pytest

from jobs.address_guard import (
    NameNotResolvedError,
    Resolver,
    Rules,
    UrlNotAllowedError,
    addresses_of,
    is_allowed,
    resolve_by_system,
)

PUBLIC = "93.184.215.14"
HTTP = Rules(allow_http=True)


def resolving(*addresses: str) -> Resolver:
    return lambda host, port: addresses


def never(host: str, port: int) -> Sequence[str]:
    raise AssertionError("nobody was to be asked")


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.9.9.9", "0.0.0.0", "10.1.2.3", "172.16.0.1", "172.31.255.255"),
        *("192.168.1.1", "169.254.169.254", "100.64.0.1", "100.100.100.200", "168.63.129.16"),
        *("192.0.0.1", "192.0.0.192", "192.0.2.1", "192.88.99.1", "198.18.0.1", "198.51.100.1"),
        *("203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255"),
        *("::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:a9fe:a9fe", "::ffff:0:a9fe:a9fe"),
        *("64:ff9b::a9fe:a9fe", "64:ff9b::7f00:1", "64:ff9b:1::a9fe:a9fe", "2002:a9fe:a9fe::"),
        *("2002:7f00:1::1", "2001:0:a9fe:a9fe::", "2001:0:5db8:d70e::5601:5601", "fc00::1"),
        *(
            "fd00:ec2::254",
            "fe80::1",
            "fe80::1%eth0",
            "fec0::1",
            "ff02::1",
            "100::1",
            "2001:db8::1",
        ),
        *("2001:2::1", "2001:10::1", "3fff::1", "5f00::1", "4000::1"),
    ],
)
def test_an_address_that_is_not_public_is_refused(address):
    assert not is_allowed(ip_address(address))


@pytest.mark.parametrize(
    "address",
    [
        *(PUBLIC, "8.8.8.8", "172.32.0.1", "192.0.1.1", "100.128.0.1", "2606:4700:4700::1111"),
        *(f"::ffff:{PUBLIC}", f"64:ff9b::{PUBLIC}", "2002:808:808::1"),
    ],
)
def test_a_public_address_is_allowed_also_within_another(address):
    assert is_allowed(ip_address(address))


def test_networks_that_the_operator_lists_are_allowed_and_no_others():
    networks = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))
    for address in ("10.1.2.3", "::ffff:10.1.2.3", "64:ff9b::10.1.2.3", "fd00::1", PUBLIC):
        assert is_allowed(ip_address(address), networks), address
    for address in ("127.0.0.1", "169.254.169.254", "fc00::1", "::ffff:169.254.169.254"):
        assert not is_allowed(ip_address(address), networks), address


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "127.1", "127.0.1", "0x7f000001", "0x7f.1", "2130706433", "017700000001"),
        *("0", "localhost", "LOCALHOST", "[::1]", "[::]", "[::ffff:a9fe:a9fe]"),
        *("[::ffff:127.0.0.1]", "[64:ff9b::a9fe:a9fe]", "[2002:a9fe:a9fe::]", "169.254.169.254"),
        *("192.0.0.192", "[fe80::1]", "0xa9fea9fe", "2852039166"),
    ],
)
def test_however_our_own_network_is_written_the_system_s_resolver_finds_it_out(host):
    with pytest.raises(UrlNotAllowedError, match="public"):
        addresses_of(f"http://{host}/x", HTTP, limit=10)


@pytest.mark.parametrize(
    "url",
    [
        *("", "x", "/x", "//example.org/", "example.org", "https:/example.org", "https://"),
        *("http://example.org/", "ftp://example.org/", "file:///etc/passwd", "gopher://e.org/"),
        *("https://user@example.org/", "https://user:word@example.org/", "https://@example.org/"),
        *("https://example.org:22/", "https://example.org:25/", "https://example.org:0/"),
        *("https://example.org:65536/", "https://example.org:x/", "https://example.org:1023/"),
        *("https://exa mple.org/", "https://example.org/ x", "https://example.org\\@127.0.0.1/"),
        *("https://example.org/\n", "\thttps://example.org/", "https://exämple.org/"),
        *("https://127。0。0。1/", "https://example.org/ä", "https://example%2eorg/"),
        *("https://[::1%25lo]/", "https://[::1/", "https://[v1.x]/", "https://-example.org/"),
        *("https://a,b/", "https://example.org-/", f"https://{'a' * 254}/"),
    ],
)
def test_a_url_of_another_form_is_refused_before_anybody_is_asked(url):
    with pytest.raises(UrlNotAllowedError):
        addresses_of(url, Rules(), limit=10, resolve=never)


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("https://Example.org", "example.org", 443),
        ("https://example.org:8443/hook?key=1#x", "example.org", 8443),
        ("https://example.org:80/", "example.org", 80),
        ("http://my_service:1024/", "my_service", 1024),
        ("http://example.org./", "example.org.", 80),
    ],
)
def test_the_name_is_resolved_once_and_all_its_addresses_are_returned(url, host, port):
    asked = []

    def resolve(*names):
        asked.append(names)
        return [PUBLIC, "2606:4700::1"]

    assert addresses_of(url, HTTP, limit=10, resolve=resolve) == [PUBLIC, "2606:4700::1"]
    assert asked == [(host, port)]


def test_an_address_needs_no_resolver():
    assert addresses_of("https://8.8.8.8/", Rules(), limit=10, resolve=never) == ["8.8.8.8"]
    found = addresses_of("https://[2606:4700::1]:4443/", Rules(), limit=10, resolve=never)
    assert found == ["2606:4700::1"]


@pytest.mark.parametrize("bad", ["127.0.0.1", "10.0.0.1", "::ffff:169.254.169.254"])
def test_one_address_that_is_not_public_is_enough(bad):
    for addresses in ([PUBLIC, bad], [bad, PUBLIC], [bad]):
        with pytest.raises(UrlNotAllowedError, match="public"):
            addresses_of("https://x.org/", Rules(), limit=10, resolve=resolving(*addresses))


def test_the_resolver_is_not_waited_for_beyond_the_limit():
    done = threading.Event()

    def slow(host, port):
        assert done.wait(60)
        return [PUBLIC]

    began = time.monotonic()
    with pytest.raises(NameNotResolvedError) as caught:
        addresses_of("https://x.org/", Rules(), limit=0.2, resolve=slow)
    assert 0.15 < time.monotonic() - began < 20
    assert caught.value.passing
    done.set()


@pytest.mark.parametrize(
    ("error", "passing"),
    [
        (socket.gaierror(socket.EAI_NONAME, "no such name"), False),
        (socket.gaierror(socket.EAI_NODATA, "no address"), False),
        (socket.gaierror(socket.EAI_AGAIN, "try again"), True),
        (OSError("the network is down"), True),
        (RuntimeError("whatever"), True),
    ],
)
def test_that_there_is_no_such_name_is_told_apart_from_what_passes(error, passing):
    def failing(host, port):
        raise error

    with pytest.raises(NameNotResolvedError) as caught:
        addresses_of("https://x.org/", Rules(), limit=10, resolve=failing)
    assert caught.value.passing == passing


def test_a_name_without_addresses_is_not_resolved():
    with pytest.raises(NameNotResolvedError):
        addresses_of("https://x.org/", Rules(), limit=10, resolve=resolving())


def test_the_system_s_resolver_names_each_address_once():
    assert "127.0.0.1" in resolve_by_system("localhost", 80)
    assert resolve_by_system("127.1", 80) == ["127.0.0.1"]
