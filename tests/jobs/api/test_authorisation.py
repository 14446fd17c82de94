"""Who may do what: every address, asked by everyone. An address without a line here fails."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final

import pytest
from django.urls import URLPattern, URLResolver, get_resolver
from rest_framework.test import APIClient

from jobs.models import AuthToken, Job, Upload, WebhookDelivery, from_now
from tests import factories
from tests.helpers import client_of

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("redis_is_empty", "script")]

CALLERS: Final = ("nobody", "revoked", "other", "owner", "staff", "service")
# What each of them is answered, in this order.
EVERYONE: Final = (200, 200, 200, 200, 200, 200)
SIGNED_IN: Final = (401, 401, 200, 200, 200, 200)

# By method and path: of the OpenAPI document, with "{job_id}" a completed job of the owner's.
CALLS: Final = {
    ("GET", "/healthz"): EVERYONE,
    ("GET", "/readyz"): EVERYONE,
    ("POST", "/transcribe"): (401, 401, 403, 202, 202, 202),
    ("GET", "/transcript/search"): (401, 401, 403, 200, 200, 200),
    ("GET", "/transcript/{job_id}"): (401, 401, 404, 200, 200, 200),
    ("DELETE", "/transcript/{job_id}"): (401, 401, 404, 204, 204, 204),
    ("POST", "/transcript/{job_id}/cancel"): (401, 401, 404, 409, 409, 409),
    ("POST", "/transcript/{job_id}/retry"): (401, 401, 404, 409, 409, 409),
    ("GET", "/transcript/{job_id}/export/{file_format}"): (401, 401, 404, 200, 200, 200),
    ("GET", "/transcript/{job_id}/audio/{index}"): (401, 401, 404, 200, 200, 200),
    ("GET", "/transcript/{job_id}/text"): (401, 401, 404, 200, 200, 200),
    ("PATCH", "/transcript/{job_id}/text"): (401, 401, 404, 200, 200, 200),
    ("GET", "/transcript/{job_id}/revisions"): (401, 401, 404, 200, 200, 200),
    ("POST", "/transcript/{job_id}/revisions/{number}/restore"): (401, 401, 404, 200, 200, 200),
    ("GET", "/transcript/{job_id}/words"): (401, 401, 404, 200, 200, 200),
    ("GET", "/transcript/{job_id}/rating"): (401, 401, 404, 200, 200, 200),
    ("PUT", "/transcript/{job_id}/rating"): (401, 401, 404, 200, 200, 200),
    ("DELETE", "/transcript/{job_id}/rating"): (401, 401, 404, 204, 204, 204),
    ("GET", "/transcript/{job_id}/mistakes"): (401, 401, 404, 200, 200, 200),
    ("POST", "/transcript/{job_id}/mistakes"): (401, 401, 404, 201, 201, 201),
    ("GET", "/usage"): (401, 401, 403, 200, 200, 200),
    ("POST", "/uploads"): (401, 401, 403, 201, 201, 201),
    # Who has the signed address may send; nobody's sign-in stands for it.
    ("PUT", "/uploads/{upload_id}"): (403, 403, 403, 403, 403, 403),
    ("DELETE", "/uploads/{upload_id}"): (401, 401, 404, 204, 204, 204),
    ("GET", "/webhooks"): (401, 401, 403, 200, 200, 200),
    ("POST", "/webhooks"): (401, 401, 403, 201, 201, 201),
    ("GET", "/webhooks/{webhook_id}"): (401, 401, 404, 200, 200, 200),
    ("PATCH", "/webhooks/{webhook_id}"): (401, 401, 404, 200, 200, 200),
    ("DELETE", "/webhooks/{webhook_id}"): (401, 401, 404, 204, 204, 204),
    ("POST", "/webhooks/{webhook_id}/rotate"): (401, 401, 404, 200, 200, 200),
    ("GET", "/webhooks/{webhook_id}/deliveries"): (401, 401, 404, 200, 200, 200),
    ("POST", "/webhooks/{webhook_id}/deliveries/{delivery_id}/redeliver"): (
        *(401, 401, 404),
        *(202, 202, 202),
    ),
    ("DELETE", "/users/{user_id}/data"): (401, 401, 404, 200, 200, 200),
    ("GET", "/engines"): SIGNED_IN,
    # By staff alone: a service token speaks for users, not for the operator.
    ("POST", "/engines/{name}/verify"): (401, 401, 403, 403, 200, 403),
}
BODIES: Final[dict[tuple[str, str], dict[str, object]]] = {
    ("POST", "/transcribe"): {"userId": "alice", "audioChunkPaths": ["alice/a.wav"]},
    ("POST", "/uploads"): {
        "userId": "alice",
        "fileName": "a.wav",
        "sizeBytes": 9,
        "contentType": "audio/wav",
    },
    ("POST", "/webhooks"): {"userId": "alice", "url": "https://8.8.4.4/"},
    ("PUT", "/transcript/{job_id}/rating"): {"stars": 4},
    ("POST", "/transcript/{job_id}/mistakes"): {"kind": "other"},
}
HEADERS: Final = {("PATCH", "/transcript/{job_id}/text"): {"If-Match": '"0"'}}
OF_A_USER: Final = {"/transcript/search", "/usage", "/webhooks"}
# By path: the addresses beside the document, asked by GET. The admin sends away who may not.
BY_SESSION: Final = (302, 302, 302, 302, 200, 302)
PAGES: Final = {
    # For who is signed in by session; a token opens none of them.
    **dict.fromkeys(("", "new"), BY_SESSION),
    **dict.fromkeys(("account/usage", "account/tokens", "account/webhooks"), BY_SESSION),
    "download": (302, 302, 302, 302, 404, 302),  # staff has chosen nothing
    "t/<uuid:job_id>": BY_SESSION,  # whose it is: see below
    "sign-in": (200, 200, 200, 200, 302, 200),
    "sign-out": (405, 405, 405, 405, 405, 405),
    "jsi18n": EVERYONE,  # words that everybody may read
    # Open to all, but whoever shows a token must show a good one.
    "schema": (200, 401, 200, 200, 200, 200),
    "docs": (200, 401, 200, 200, 200, 200),
    "redoc": (200, 401, 200, 200, 200, 200),
    "api-auth/login/": EVERYONE,
    "api-auth/logout/": (405, 405, 405, 405, 405, 405),
    "admin": (302, 302, 302, 302, 302, 302),
    "admin/": (302, 302, 302, 302, 200, 302),
    "admin/login/": (200, 200, 200, 200, 302, 200),
    "admin/logout/": (302, 302, 302, 302, 405, 302),
    "admin/password_change/": (302, 302, 302, 302, 200, 302),
    "admin/password_change/done/": (302, 302, 302, 302, 200, 302),
    "admin/jsi18n/": (302, 302, 302, 302, 200, 302),
    "admin/autocomplete/": (302, 302, 302, 302, 403, 302),
}
# The rest of the admin: for staff, some of it for no staff member, and for nobody else anything.
ADMIN_PREFIX: Final = "admin/"
OF_ADMIN: Final = {200, 302, 403, 404}


@pytest.fixture
def callers() -> Callable[[], dict[str, APIClient]]:
    """Everyone, anew. The staff member is one by session, and a superuser."""

    def make() -> dict[str, APIClient]:
        revoked = factories.make_token("alice")
        AuthToken.objects.all().delete()
        staff = client_of()
        staff.force_login(factories.make_user("root", is_staff=True, is_superuser=True))
        return {
            "nobody": client_of(),
            "revoked": client_of(revoked),
            "other": client_of(factories.make_token("bob")),
            "owner": client_of(factories.make_token("alice")),
            "staff": staff,
            "service": client_of(factories.make_token("robot", service=True)),
        }

    return make


@pytest.fixture
def job() -> Job:
    factories.put_audio("alice/a.wav")
    factories.put_audio("alice/00.wav")  # of the job
    factories.make_webhook("https://8.8.8.8/")
    job = factories.make_completed_job("secret words")
    factories.make_rating(job, comment="secret words")
    factories.make_mistake(job, heard="secret words")
    announced = {"size_bytes": 9, "expires_time": from_now(factories.A_DAY)}
    Upload.objects.create(pk=job.pk, user_id="alice", path="alice/uploads/x", **announced)
    return job


def documented() -> set[tuple[str, str]]:
    document = client_of().get("/schema").json()
    return {(method.upper(), path) for path, calls in document["paths"].items() for method in calls}


def patterns(resolver: URLResolver, before: str = "") -> Iterator[str]:
    for pattern in resolver.url_patterns:
        route = before + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            yield from patterns(pattern, route)
        elif isinstance(pattern, URLPattern):
            yield route


def ask(client: APIClient, method: str, path: str, job: Job) -> int:
    address = address_of(path, job)
    if (method, path) in BODIES:
        send = getattr(client, method.lower())
        return int(send(address, BODIES[method, path]).status_code)
    query = "?userId=alice" if path in OF_A_USER else ""
    headers = HEADERS.get((method, path))
    return int(client.generic(method, address + query, headers=headers).status_code)


def address_of(path: str, job: Job) -> str:
    delivery = WebhookDelivery.objects.get(job_id=job.pk)
    given = {"file_format": "txt", "user_id": "alice", "name": "pocketsphinx"}
    given |= {"index": "0", "number": "0"}
    given |= {"webhook_id": str(delivery.endpoint_id), "delivery_id": str(delivery.pk)}
    return path.format(job_id=job.pk, upload_id=job.pk, **given)


def test_every_call_of_the_document_has_a_line() -> None:
    assert documented() == set(CALLS)


@pytest.mark.parametrize("call", sorted(CALLS), ids=" ".join)
@pytest.mark.parametrize("name", CALLERS)
def test_each_call_answers_each_caller_as_it_should(
    callers: Callable[[], dict[str, APIClient]], job: Job, call: tuple[str, str], name: str
) -> None:
    assert ask(callers()[name], *call, job) == CALLS[call][CALLERS.index(name)]


@pytest.mark.parametrize("name", ["nobody", "revoked", "other"])
def test_who_is_refused_is_told_nothing_and_changes_nothing(
    callers: Callable[[], dict[str, APIClient]], job: Job, name: str
) -> None:
    client = callers()[name]
    before = list(Job.objects.filter(user_id="alice").values())
    for method, path in CALLS:
        answer = client.generic(
            method, address_of(path, job), "{}", content_type="application/json"
        )
        assert "secret words" not in answer.content.decode()
    assert list(Job.objects.filter(user_id="alice").values()) == before


def shown(route: str) -> bool:
    """Whether the document tells of it: by another spelling of the same address."""
    spelled = "/" + re.sub("<(uuid|str|int):", "<", route)
    return spelled.replace("<", "{").replace(">", "}") in {path for _, path in CALLS}


def beside() -> set[str]:
    """All addresses that the document does not show."""
    return {route for route in patterns(get_resolver()) if not shown(route)}


def test_every_other_address_has_a_line_or_is_the_admins() -> None:
    unknown = {route for route in beside() - set(PAGES) if not route.startswith(ADMIN_PREFIX)}
    assert unknown == set()
    assert set(PAGES) <= beside()


@pytest.mark.parametrize("path", PAGES)
def test_each_page_answers_each_caller_as_it_should(
    callers: Callable[[], dict[str, APIClient]], job: Job, path: str
) -> None:
    address = f"/{path}".replace("<uuid:job_id>", str(job.pk))
    codes = [client.get(address).status_code for client in callers().values()]
    assert tuple(codes) == PAGES[path]


def test_the_pages_show_nobody_anothers_transcripts(job: Job) -> None:
    answers = {}
    for name in ("alice", "bob"):
        client = client_of()
        client.force_login(factories.make_user(name))
        addresses = (f"/t/{job.pk}", f"/download?format=txt&job={job.pk}", "/", "/?text=secret")
        answers[name] = [client.get(address) for address in addresses]
    assert [answer.status_code for answer in answers["alice"]] == [200] * 4
    assert [answer.status_code for answer in answers["bob"]] == [404, 404, 200, 200]
    for answer in answers["bob"]:
        assert b"secret words" not in answer.content
        assert str(job.pk).encode() not in answer.content


def test_nobody_but_staff_sees_anything_of_the_admin(
    callers: Callable[[], dict[str, APIClient]], job: Job
) -> None:
    clients = callers()
    ordinary = client_of()
    ordinary.force_login(factories.make_user("carol"))
    clients["by session, no staff"] = ordinary
    staff = clients.pop("staff")
    routes = [
        route.replace("<path:object_id>", str(job.pk)).replace("<app_label>", "jobs")
        for route in beside() - set(PAGES)
        if route.startswith(ADMIN_PREFIX)
    ]
    assert len(routes) > 30
    for route in routes:
        address = "/" + route.replace("<id>", "1").replace("^(?P<app_label>", "").rstrip("$")
        assert staff.get(address).status_code in OF_ADMIN, address
        for name, client in clients.items():
            answer = client.get(address)
            sent_away = answer.status_code == 302 and answer["Location"].startswith("/admin/login/")
            assert sent_away or answer.status_code == 404, (name, address, answer.status_code)
            assert b"secret words" not in answer.content
