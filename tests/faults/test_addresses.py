"""Row 31: webhooks that lead into our own network, in every spelling, and by detours."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest

from tests.asr.vendor import Vendor, serving
from tests.faults.row import Row
from tests.faults.world import RECEIVER, USER, World
from tests.helpers import wait_until

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]
NAMES = Path(__file__).parent / "names"
CANARY = "127.0.0.1"
WAYS_IN = (
    *("169.254.169.254", "[::ffff:a9fe:a9fe]", "[64:ff9b::a9fe:a9fe]", "[fd00:ec2::254]"),
    *(CANARY, "127.1", "0x7f000001", "2130706433", "0177.0.0.1", "0.0.0.0", "localhost"),
    *("[::1]", "[::ffff:7f00:1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]"),
    *("private.test", "mixed.test"),
)


class Names:
    """What names resolve to in the processes of a world."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "names.json"
        self._known: dict[str, list[list[str]]] = {}
        self.variables = {"PYTHONPATH": str(NAMES), "NAMES_FILE": str(self._file)}

    def say(self, name: str, *answers: list[str]) -> None:
        """From now on; several answers are given in turn."""
        self._known[name] = list(answers)
        whole = self._file.with_suffix(".new")
        whole.write_text(json.dumps(self._known))
        whole.rename(self._file)


def assert_not_allowed(answer: httpx2.Response, field: str) -> None:
    assert answer.status_code == 400, answer.text
    errors = [(error["code"], error["attr"]) for error in answer.json()["errors"]]
    assert errors == [("url_not_allowed", field)], answer.request.content


@contextmanager
def canary(world: World) -> Iterator[tuple[Vendor, int]]:
    """Who must not be called, at the port that the receiver has at another address."""
    port = urlsplit(world.receiver.url).port
    assert port is not None
    with serving(CANARY, port) as server:
        httpx2.get(f"http://{CANARY}:{port}/", trust_env=False)
        assert len(server.received) == 1, "it hears who calls"
        server.received.clear()
        yield server, port
        assert server.connections == 1, "somebody called it"


def new_webhook(world: World, url: str) -> str:
    answer = world.client.post("/webhooks", json={"url": url, "userId": USER})
    assert answer.status_code == 201, answer.text
    return str(answer.headers["Location"])


def attempts(world: World, webhook: str) -> list[tuple[str | None, int | None]]:
    """Of the one delivery to it: errors and status codes."""
    (delivery,) = world.client.get(f"{webhook}/deliveries").json()["results"]
    over = [one for one in delivery["attempts"] if one["error"] != "interrupted"]
    return [(one["error"], one["statusCode"]) for one in over]


def test_row_31_webhooks_do_not_lead_into_our_own_network(row: Row, tmp_path: Path) -> None:
    names = Names(tmp_path)
    names.say("private.test", [CANARY])
    names.say("mixed.test", [RECEIVER, CANARY])
    names.say("rebinding.test", [RECEIVER])
    names.say("flickering.test", [RECEIVER], [CANARY])
    world = row.fresh_world(**names.variables)
    audio = row.audio(1)
    with canary(world) as (_, port):
        for host in WAYS_IN:
            assert_refused(world, audio[0].path, f"http://{host}:{port}/hook")
        assert_refused(world, audio[0].path, "http://169.254.169.254/latest/meta-data/")
        assert_refused(world, audio[0].path, f"http://{CANARY}:6379/")

        rebinding = new_webhook(world, f"http://rebinding.test:{port}/hook")
        redirected = new_webhook(world, f"{world.receiver.url}/redirect")
        names.say("rebinding.test", [CANARY])
        row.fault("a name leads elsewhere than when it was checked, and a receiver sends us away")
        world.receiver.answer = lambda handler: redirect(handler, f"http://{CANARY}:{port}/")
        job_id = row.submit(audio, webhookUrl=f"http://flickering.test:{port}/flickering")
        row.wait_for_end(job_id)
        wait_until(lambda: attempts(world, rebinding) and attempts(world, redirected), 60)
        assert attempts(world, rebinding)[0] == ("url_not_allowed", None)
        assert attempts(world, redirected)[0] == ("redirect_not_followed", 302)
        for webhook in (rebinding, redirected):  # which would be tried for three days
            assert world.client.patch(webhook, json={"enabled": False}).status_code == 200
        row.verify()
        told = {request.path for request in world.receiver.received}
        assert told == {"/v1", "/v1/redirect", "/flickering"}, "looked up once, and then called"


def assert_refused(world: World, audio: Path, url: str) -> None:
    """For a job, for a new webhook, and for one that there is."""
    path = str(audio.relative_to(world.audio_root))
    body: dict[str, Any] = {"audioChunkPaths": [path], "userId": USER, "webhookUrl": url}
    before = world.database.job_ids()
    assert_not_allowed(world.client.post("/transcribe", json=body), "webhookUrl")
    assert world.database.job_ids() == before
    assert_not_allowed(world.client.post("/webhooks", json={"url": url, "userId": USER}), "url")
    assert_not_allowed(world.client.patch(world.webhook, json={"url": url}), "url")


def redirect(handler: Any, target: str) -> None:
    """Send who asks for /redirect to the target, and take everything else."""
    away = handler.own.path.endswith("/redirect")
    handler.json(302 if away else 200, {}, {"Location": target} if away else None)
