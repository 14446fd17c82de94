"""A server that speaks OpenAI's transcription API and takes its time: `python -m … PORT LOW HIGH`.

Each call is answered after LOW to HIGH seconds, evenly spread, with words that follow from the
file's digest. What the vendor would refuse is refused. `GET /log` tells when each call began and
ended, by the monotonic clock, and its words.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final
from urllib.error import URLError

from aiohttp import web

from deploy.system import die_with_parent, free_port

KEY: Final = "sk-of-the-benchmark"
MODEL: Final = "whisper-1"
CALL_LOG = web.AppKey("log", list[tuple[float, float, str]])
SECONDS = web.AppKey("seconds", tuple[float, float])


async def transcribe(request: web.Request) -> web.Response:
    """`POST /v1/audio/transcriptions`."""
    began = time.monotonic()
    body = await request.read()
    content_type = request.headers.get("Content-Type", "")
    if request.headers.get("Authorization") != f"Bearer {KEY}":
        raise web.HTTPUnauthorized
    if not content_type.startswith("multipart/form-data; boundary="):
        raise web.HTTPBadRequest(text=f"Content-Type {content_type!r}")
    boundary = content_type.partition("boundary=")[2].encode()
    heads = [part[:300] for part in body.split(b"--" + boundary)]
    for wanted in (b'name="model"\r\n\r\n' + MODEL.encode(), b'name="file"; filename="'):
        if not any(wanted in head for head in heads):
            raise web.HTTPBadRequest(text=f"without {wanted!r}")
    await asyncio.sleep(random.uniform(*request.app[SECONDS]))
    text = f"File {hashlib.sha256(body).hexdigest()[:12]} was spoken."
    request.app[CALL_LOG].append((began, time.monotonic(), text))
    word_list = [{"word": word, "start": 0.0, "end": 1.0} for word in text.split()]
    segment = {"text": text, "start": 0.0, "end": 1.0, "avg_logprob": -0.1}
    answer = {"text": text, "language": "english", "segments": [segment], "words": word_list}
    return web.Response(body=json.dumps(answer).encode(), content_type="application/json")


async def call_log(request: web.Request) -> web.Response:
    """`GET /log`: [[began, ended, text], …] of all answered calls."""
    return web.json_response(request.app[CALL_LOG])


def application(low: float, high: float) -> web.Application:
    """The server's application; answers take `low` to `high` seconds."""
    app = web.Application(client_max_size=30_000_000)
    app[CALL_LOG], app[SECONDS] = [], (low, high)
    app.add_routes(
        [web.post("/v1/audio/transcriptions", transcribe), web.get("/log", call_log)],
    )
    return app


@contextmanager
def engine(low: float, high: float) -> Iterator[dict[str, str]]:
    """The engine's server in a process of its own; the variables of a system that uses it."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.engine_server", str(port), str(low), str(high)]
    with subprocess.Popen(command, preexec_fn=die_with_parent) as server:  # noqa: PLW1509
        try:
            environ = {
                "ASR_ENGINE": "openai",
                "OPENAI_API_KEY": KEY,
                "OPENAI_BASE_URL": f"http://127.0.0.1:{port}/v1",
                "OPENAI_MODEL": MODEL,
            }
            while True:
                try:
                    log_of(environ)
                    break
                except URLError:
                    time.sleep(0.05)
            yield environ
        finally:
            server.kill()  # asked politely, it would first answer all calls


def log_of(environ: dict[str, str]) -> list[tuple[float, float]]:
    """When each call of the engine began and ended."""
    return [(began, ended) for began, ended, _ in _log(environ)]


def ends_of(environ: dict[str, str]) -> dict[str, float]:
    """When the call ended that heard these words."""
    return {text: ended for _, ended, text in _log(environ)}


def _log(environ: dict[str, str]) -> list[tuple[float, float, str]]:
    url = environ["OPENAI_BASE_URL"].removesuffix("/v1") + "/log"
    with urllib.request.urlopen(url) as answer:  # noqa: S310
        return [(began, ended, text) for began, ended, text in json.load(answer)]


if __name__ == "__main__":
    port, low, high = sys.argv[1:]
    app = application(float(low), float(high))
    web.run_app(app, host="127.0.0.1", port=int(port), print=None, backlog=2048, access_log=None)
