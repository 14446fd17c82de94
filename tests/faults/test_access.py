"""Row 37: what is another's is not there, and what was not signed for is not taken."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import httpx2
import pytest
from django.core.signing import TimestampSigner, b62_encode

from tests.asr.sounds import wav
from tests.faults import recordings
from tests.faults.row import Row
from tests.faults.world import USER, World
from tests.object_storage import KEY, SECRET, start_object_storage

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]
BUCKET = "audio"
HOUR = 3600
SIGNING_KEY = "known-to-the-service-and-to-this-row"
REFUSED = {400, 403, 413}  # by the service or by the bucket


def caller(world: World, user: str) -> httpx2.Client:
    """Who has an ordinary token of that user."""
    command = world.manage("issue_token", user)
    output, _ = command.communicate(timeout=60)
    assert command.returncode == 0, output
    headers = {"Authorization": f"Token {output.split()[-1]}"}
    return httpx2.Client(base_url=world.client.base_url, headers=headers, trust_env=False)


def codes(answer: httpx2.Response, status: int) -> list[tuple[str, str | None]]:
    """What is wrong: codes and fields."""
    assert answer.status_code == status, answer.text
    return [(error["code"], error["attr"]) for error in answer.json()["errors"]]


# --- jobs and webhooks


def addresses(user: str, job: str, webhook: str, delivery: str) -> list[tuple[str, str, Any]]:
    """All that can be done to what is another's by who knows its id."""
    return [
        ("GET", f"/transcript/{job}", None),
        ("GET", f"/transcript/{job}/export/txt", None),
        ("POST", f"/transcript/{job}/cancel", None),
        ("POST", f"/transcript/{job}/retry", None),
        ("DELETE", f"/transcript/{job}", None),
        ("GET", f"/webhooks/{webhook}", None),
        ("PATCH", f"/webhooks/{webhook}", {"enabled": False}),
        ("POST", f"/webhooks/{webhook}/rotate", None),
        ("GET", f"/webhooks/{webhook}/deliveries", None),
        ("POST", f"/webhooks/{webhook}/deliveries/{delivery}/redeliver", None),
        ("DELETE", f"/webhooks/{webhook}", None),
        ("DELETE", f"/users/{user}/data", None),
    ]


def in_the_name_of_another(path: str) -> list[tuple[str, str, Any]]:
    """Calls that name the user, or a file in the user's folder."""
    file = {"fileName": "a.wav", "contentType": "audio/wav", "sizeBytes": 100}
    return [
        ("POST", "/transcribe", {"audioChunkPaths": [path]}),
        ("POST", "/transcribe", {"recordingPath": path}),
        ("POST", "/transcribe", {"audioChunkPaths": [path], "userId": USER}),
        ("POST", "/uploads", {**file, "userId": USER}),
        ("POST", "/webhooks", {"url": "https://example.com/", "userId": USER}),
        ("GET", f"/usage?userId={USER}", None),
        ("GET", f"/webhooks?userId={USER}", None),
    ]


def revoke(world: World, client: httpx2.Client) -> None:
    """Delete the token, as an operator does."""
    key = client.headers["Authorization"].removeprefix("Token ")
    rows = world.database.read("SELECT digest, token_key FROM jobs_authtoken")
    (digest,) = [row["digest"] for row in rows if key.startswith(row["token_key"])]
    login = world.client.base_url.join("/admin/login/")
    page = world.client.base_url.join(f"/admin/jobs/authtoken/{digest}/delete/")
    with httpx2.Client(trust_env=False) as operator:
        operator.get(login)
        name = {n: world.credentials[n] for n in ("username", "password")}
        assert operator.post(login, data=signed(operator, **name)).status_code == 302
        assert operator.post(page, data=signed(operator, post="yes")).status_code == 302


def signed(operator: httpx2.Client, **fields: str) -> dict[str, str]:
    """A form as the browser sends it."""
    return {"csrfmiddlewaretoken": str(operator.cookies["csrftoken"]), **fields}


def test_row_37_another_s_jobs_and_webhooks_are_not_there(row: Row) -> None:
    world = row.world()
    owner, other = caller(world, USER), caller(world, "bob")
    audio = row.audio(2)
    job_id = row.submit(audio)
    row.wait_for_end(job_id)
    webhook = world.webhook.rpartition("/")[2]
    delivery = owner.get(f"{world.webhook}/deliveries").json()["results"][0]["id"]
    before = owner.get(world.webhook).json()

    nobodys = addresses("nobody", *(str(uuid4()) for _ in range(3)))
    theirs = addresses(USER, job_id, webhook, delivery)
    for (method, address, body), (_, unknown, _) in zip(theirs, nobodys, strict=True):
        refused = other.request(method, address, json=body)
        assert codes(refused, 404) == [("not_found", None)], address
        assert refused.content == other.request(method, unknown, json=body).content, address
    found = other.get("/transcript/search").json()["results"]
    assert job_id not in [result["jobId"] for result in found]
    for method, address, body in in_the_name_of_another(
        str(audio[0].path.relative_to(world.audio_root))
    ):
        ((code, _),) = codes(other.request(method, address, json=body), 403)
        assert code == "permission_denied", address
    assert owner.get(world.webhook).json() == before
    assert owner.get(f"/transcript/{job_id}").json() == row.read(job_id)

    row.fault("the token of the other is revoked")
    assert other.get("/transcript/search").status_code == 200
    revoke(world, other)
    for method, address, body in [*theirs, ("GET", "/transcript/search", None)]:
        assert other.request(method, address, json=body).status_code == 401, address
    row.verify()


# --- uploads


def announce(client: httpx2.Client, content: bytes, kind: str = "chunk") -> dict[str, Any]:
    asked = {"fileName": "a.wav", "contentType": "audio/wav", "kind": kind}
    answer = client.post("/uploads", json=asked | {"sizeBytes": len(content)})
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def put(upload: dict[str, Any], content: bytes, **changed: str) -> int:
    """Send a file to the address of an upload, by whoever has it; how that was answered."""
    headers = {**upload["headers"], "Content-Type": changed.pop("type", "audio/wav")}
    url = changed.pop("url", upload["uploadUrl"])
    return httpx2.put(url, content=content, headers=headers, trust_env=False).status_code


Forge = Callable[[str, str], list[str]]


def forged_of_service(mine: str, others: str) -> list[str]:
    """Addresses for another's upload, made of one's own, or of one that has ended."""
    own, taken = urlsplit(mine), urlsplit(others)
    signed_for = parse_qs(taken.query)
    size, signature = signed_for["size"][0], signed_for["signature"][0]
    value = f"{taken.path.rpartition('/')[2]}-{size}"
    earlier = EarlierSigner(key=SIGNING_KEY, salt="verbatim.upload")
    assert earlier.unsign(f"{value}:{signature}") == value, "it is the service's own key"
    late = earlier.sign(value).partition(":")[2]
    return [
        taken._replace(query=own.query).geturl(),
        taken._replace(query=taken.query.replace(f"size={size}", f"size={int(size) + 1}")).geturl(),
        taken._replace(query=f"size={size}&signature={late}").geturl(),
        taken._replace(query=f"size={size}&signature={signature[:-1]}").geturl(),
        taken._replace(query="").geturl(),
    ]


class EarlierSigner(TimestampSigner):
    """What the service's own key has signed an hour ago."""

    def timestamp(self) -> str:
        return b62_encode(int(time.time()) - HOUR)


def forged_of_bucket(mine: str, others: str) -> list[str]:
    """The same with a bucket's addresses, whose time cannot be made longer either."""
    own, taken = urlsplit(mine), urlsplit(others)
    lasts = parse_qs(taken.query)["X-Amz-Expires"][0]
    assert int(lasts) <= 900
    longer = taken.query.replace(f"X-Amz-Expires={lasts}", "X-Amz-Expires=604800")
    return [
        taken._replace(query=own.query).geturl(),
        taken._replace(query=longer).geturl(),
        taken._replace(query=taken.query[:-1]).geturl(),
        taken._replace(query="").geturl(),
    ]


def check_uploads(row: Row, world: World, forge: Forge) -> None:
    """Nothing but the file that was announced comes in, and only its user may have it."""
    owner, other = caller(world, USER), caller(world, "bob")
    content = wav(recordings.noise(0.5).tobytes())
    upload, foreign = announce(owner, content), announce(other, content)
    never, whole = announce(owner, content), announce(owner, content, "recording")
    paths = [upload["audioChunkPath"], never["audioChunkPath"]]

    for named, field in (
        ({"audioChunkPaths": paths[1:]}, "audioChunkPaths.0"),
        ({"recordingPath": whole["recordingPath"]}, "recordingPath"),
    ):
        refused = owner.post("/transcribe", json=named)
        assert codes(refused, 400) == [("audio_not_found", field)]
    row.fault("somebody sends what was not announced, and where it was not allowed to")
    for address in forge(foreign["uploadUrl"], upload["uploadUrl"]):
        assert put(upload, content, url=address) in REFUSED, address
    for wrong in (content + b"\0", content[:-1], b""):
        assert put(upload, wrong) in REFUSED, len(wrong)
    assert put(upload, content, type="audio/flac") in REFUSED
    assert not list(world.audio_root.rglob("*.wav")), "nothing came in"
    assert codes(owner.post("/transcribe", json={"audioChunkPaths": paths[:1]}), 400)

    assert put(upload, content) in {200, 201, 204}, "what was refused has not used it up"
    assert (world.audio_root / paths[0]).read_bytes() == content
    stolen = other.post("/transcribe", json={"audioChunkPaths": paths[:1]})
    assert codes(stolen, 403) == [("permission_denied", "audioChunkPaths.0")]
    job_id = row.taken(owner.post("/transcribe", json={"audioChunkPaths": paths[:1]}))
    row.wait_for_end(job_id)
    row.expect(job_id)


def test_row_37_uploads_are_taken_from_who_was_signed_for(row: Row) -> None:
    world = row.fresh_world(SECRET_KEY=SIGNING_KEY)
    check_uploads(row, world, forged_of_service)
    row.verify()


def test_row_37_uploads_to_a_bucket_likewise(row: Row, tmp_path: Path) -> None:
    with ExitStack() as stack:
        storage = start_object_storage(stack, tmp_path)
        world = row.fresh_world(
            AUDIO_ROOT="",
            AUDIO_STORAGE_URL=f"s3://{BUCKET}?endpoint={storage.url}",
            AUDIO_STORAGE_ALLOW_HTTP="true",
            AWS_ACCESS_KEY_ID=KEY,
            AWS_SECRET_ACCESS_KEY=SECRET,
        )
        world.audio_root = storage.root / BUCKET
        check_uploads(row, world, forged_of_bucket)
        row.verify()
