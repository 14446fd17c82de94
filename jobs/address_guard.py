"""The guard of addresses that users give us to call: none may lead into our own network.

What a name resolves to may change from one look to the next. So who calls asks here each time,
and connects to the very addresses that were checked, whatever the name resolves to by then.
"""

from __future__ import annotations

import queue
import re
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final
from urllib.parse import SplitResult, urlsplit

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Resolver = Callable[[str, int], Sequence[str]]
"""Everything that a name resolves to, for a port. Raises OSError."""

_NAME: Final = re.compile(r"[a-z0-9_]([a-z0-9_.-]{0,251}[a-z0-9_.])?")
_WEB_PORTS: Final = {80, 443}
_PORTS_OF_SERVICES: Final = range(1024)
_DEFAULT_PORTS: Final = {"https": 443, "http": 80}
_NO_SUCH_NAME: Final = {socket.EAI_NONAME, socket.EAI_NODATA}

# Python's own `is_global` depends on its version, and lets through multicast, 192.0.0.192, NAT64
# and 6to4. These are IANA's registries of special-purpose addresses.
_NOT_PUBLIC: Final = tuple(
    ip_network(network)
    for network in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",  # shared by carriers; a cloud's metadata
        "127.0.0.0/8",
        "168.63.129.16/32",  # public by its number, and yet a cloud's own for its machines
        "169.254.0.0/16",  # link-local; metadata of most clouds
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
        "2001::/23",  # of protocols
        "2001:db8::/32",
        "3fff::/20",
    )
)
_GLOBAL_UNICAST: Final = IPv6Network("2000::/3")  # all that is given out; the rest is not public
_NAT64: Final = IPv6Network("64:ff9b::/96")


class UrlNotAllowedError(Exception):
    """The URL must not be called. The message says why, and nothing of what lies there."""


class NameNotResolvedError(Exception):
    """The name's addresses are not known; `passing` when they may be later."""

    def __init__(self, message: str, *, passing: bool) -> None:
        super().__init__(message)
        self.passing = passing


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What the operator allows beyond https to public addresses."""

    allow_http: bool = False
    networks: tuple[Network, ...] = ()


def resolve_by_system(host: str, port: int) -> list[str]:
    """See `Resolver`."""
    found = socket.getaddrinfo(host.encode(), port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def addresses_of(
    url: str, rules: Rules, *, limit: float, resolve: Resolver = resolve_by_system
) -> list[str]:
    """The addresses that a URL leads to, all of them checked, found within `limit` seconds.

    Raises:
        UrlNotAllowedError: its form is not allowed, or one of its addresses is not.
        NameNotResolvedError: its name has no address, or none was found in time.
    """
    parts = _taken_apart(url, rules)
    host, port = parts.hostname or "", parts.port or _DEFAULT_PORTS[parts.scheme]
    if port in _PORTS_OF_SERVICES and port not in _WEB_PORTS:
        raise UrlNotAllowedError("Of the ports below 1024 only 80 and 443 are allowed.")
    try:
        found: Sequence[str] = [str(ip_address(host))]
    except ValueError:
        if "[" in parts.netloc or not _NAME.fullmatch(host):
            raise UrlNotAllowedError("The URL names no host.") from None
        found = _look_up(resolve, host, port, limit)
    if not all(is_allowed(ip_address(address), rules.networks) for address in found):
        raise UrlNotAllowedError("The URL does not lead to public addresses alone.")
    return list(found)


def is_allowed(address: Address, networks: Sequence[Network] = ()) -> bool:
    """Whether an address is public or in one of the networks; those within it decide for it."""
    return all(
        any(inner in network for network in networks) or _is_public(inner)
        for inner in _within(address)
    )


def _taken_apart(url: str, rules: Rules) -> SplitResult:
    """The URL's parts; only of forms that no two programs read in different ways."""
    if not re.fullmatch(r"[!-\[\]-~]+", url):  # neither spaces nor backslashes, all of it ASCII
        raise UrlNotAllowedError("A URL has neither spaces nor backslashes, and is all of ASCII.")
    schemes = {"https", "http"} if rules.allow_http else {"https"}
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise UrlNotAllowedError("The URL cannot be read.") from None
    if parts.scheme not in schemes:
        raise UrlNotAllowedError(f"The URL must begin with {' or '.join(sorted(schemes))}://.")
    if "@" in parts.netloc:
        raise UrlNotAllowedError("The URL must not hold a user's name or password.")
    if port == 0 or "%" in parts.netloc:
        raise UrlNotAllowedError("The URL names no host and port.")
    return parts


def _within(address: Address) -> tuple[Address, ...]:
    """The IPv4 addresses that an IPv6 address stands for; of any other, itself."""
    if isinstance(address, IPv4Address):
        return (address,)
    if address.teredo is not None:
        return address.teredo
    if address in _NAT64:
        return (IPv4Address(int(address) & 0xFFFF_FFFF),)
    inner = address.ipv4_mapped or address.sixtofour
    return (inner or address,)


def _is_public(address: Address) -> bool:
    if isinstance(address, IPv6Address) and address not in _GLOBAL_UNICAST:
        return False
    return not any(address in network for network in _NOT_PUBLIC)


def _look_up(resolve: Resolver, host: str, port: int, limit: float) -> Sequence[str]:
    """Ask in a thread of its own: the system's resolver cannot be interrupted."""
    answers: queue.SimpleQueue[Sequence[str] | Exception] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put(resolve(host, port))
        except Exception as error:  # whoever waits must hear of it
            answers.put(error)

    threading.Thread(target=ask, name="resolver", daemon=True).start()
    try:
        answer = answers.get(timeout=max(0.0, limit))
    except queue.Empty:
        raise NameNotResolvedError("The name was not resolved in time.", passing=True) from None
    if isinstance(answer, Exception):
        passing = not (isinstance(answer, OSError) and answer.errno in _NO_SUCH_NAME)
        raise NameNotResolvedError("The name cannot be resolved.", passing=passing) from answer
    if not answer:
        raise NameNotResolvedError("The name has no address.", passing=True)
    return answer
