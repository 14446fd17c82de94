"""How often somebody may try a password, at every page that asks for one.

Tries are counted by name and address together, so that nobody locks another person out from
elsewhere, and by address alone, so that nobody tries one password on many names. A try counts
before the password is looked at: a thousand at the same moment are a thousand. A sign-in gives
back what it took. While Redis is away nothing is counted, and people sign in all the same.
"""

from __future__ import annotations

import hashlib
import math
import unicodedata
from collections.abc import Callable
from functools import wraps
from ipaddress import ip_address, ip_network
from typing import Any, Final

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render

from jobs import rate_limits

SECONDS: Final = 15 * 60
TRIES: Final = 10  # of a name from an address, at once; after that one each 90 s
TRIES_OF_ADDRESS: Final = 100
_NETWORK_BITS: Final = 64  # of IPv6: what one household or machine has all to itself

View = Callable[..., HttpResponseBase]


def limited(sign_in: View, name_of: Callable[[HttpRequest], str] | None = None) -> View:
    """A view that takes a password by POST, with bounded tries: 429 beyond them.

    `name_of` tells whose password it is; by default the one in the form's `username`.
    """
    name_of = name_of or _name

    @wraps(sign_in)
    def view(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if request.method != "POST":
            return sign_in(request, *args, **kwargs)
        name, address = name_of(request), _network(request.META.get("REMOTE_ADDR", ""))
        both = f"sign-in:{address}:{hashlib.sha256(name.encode(errors='replace')).hexdigest()}"
        alone = f"sign-in:{address}"
        for caller, limit in ((both, TRIES), (alone, TRIES_OF_ADDRESS)):
            taken = rate_limits.take(caller, limit, SECONDS)
            if taken is not None and not taken.allowed:
                if caller is alone:  # nobody looked at a password of this name
                    rate_limits.give_back(both, TRIES, SECONDS)
                return _too_many(request, taken.retry_seconds)
        answer = sign_in(request, *args, **kwargs)
        # By whose session it is now: a redirect may also be for somebody who was signed in before.
        if answer.status_code == 302 and request.user.get_username() == name:
            rate_limits.forget(both)
            rate_limits.give_back(alone, TRIES_OF_ADDRESS, SECONDS)
        return answer

    return view


def _name(request: HttpRequest) -> str:
    """The name as the form reads it, which makes one of equal spellings."""
    return unicodedata.normalize("NFKC", request.POST.get("username", "").strip())


def _network(address: str) -> str:
    """The caller's address as uvicorn has it: of a proxy that is trusted, the one that it says."""
    try:
        parsed = ip_address(address)
    except ValueError:  # a socket's file has none
        return address
    mapped = getattr(parsed, "ipv4_mapped", None)
    if parsed.version == 4 or mapped:
        return str(mapped or parsed)
    return str(ip_network((parsed.packed, _NETWORK_BITS), strict=False))


def _too_many(request: HttpRequest, seconds: int) -> HttpResponse:
    context = {"minutes": math.ceil(seconds / 60)}
    answer = render(request, "web/too_many_tries.html", context, status=429)
    answer["Retry-After"] = str(max(1, seconds))
    return answer
