"""A resolver for rows: in a process with this folder on its PYTHONPATH, names are what a row says.

NAMES_FILE holds `{"name": [["address", …], …]}`: what is found at a process's first look, its
second …, and then from the beginning. Other names are asked for as usual.
"""

from __future__ import annotations

import json
import os
import socket
from collections import Counter
from pathlib import Path
from typing import Any

_ask_the_system: Any = socket.getaddrinfo
_looks: Counter[str] = Counter()


def getaddrinfo(host: Any, port: Any, *rest: Any, **options: Any) -> Any:
    name = host.decode() if isinstance(host, bytes) else str(host)
    known = json.loads(Path(os.environ["NAMES_FILE"]).read_text())
    if name not in known:
        return _ask_the_system(host, port, *rest, **options)
    answers = known[name]
    addresses = answers[_looks[name] % len(answers)]
    _looks[name] += 1
    found = [_ask_the_system(address, port, *rest, **options) for address in addresses]
    return [entry for entries in found for entry in entries]


socket.getaddrinfo = getaddrinfo
