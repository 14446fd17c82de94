"""All addresses, as the contract writes them."""

from __future__ import annotations

from uuid import UUID

import pytest
from django.test import Client
from django.urls import Resolver404, resolve, reverse
from rest_framework.test import APIClient

JOB = UUID("01890000-0000-7000-8000-000000000000")


@pytest.mark.parametrize(
    ("name", "args", "address"),
    [
        ("transcribe", [], "/transcribe"),
        ("transcript-search", [], "/transcript/search"),
        ("transcript", [JOB], f"/transcript/{JOB}"),
        ("transcript-cancel", [JOB], f"/transcript/{JOB}/cancel"),
        ("transcript-retry", [JOB], f"/transcript/{JOB}/retry"),
        ("healthz", [], "/healthz"),
        ("readyz", [], "/readyz"),
        ("schema", [], "/schema"),
        ("docs", [], "/docs"),
        ("redoc", [], "/redoc"),
        ("admin:index", [], "/admin/"),
    ],
)
def test_an_address_is_as_the_contract_writes_it(name: str, args: list[UUID], address: str) -> None:
    assert reverse(name, args=args) == address
    assert resolve(address).view_name == name


@pytest.mark.parametrize("address", ["/transcribe/", "/transcript/search/", f"/transcript/{JOB}/"])
def test_there_is_no_trailing_slash_and_no_redirect(anybody: APIClient, address: str) -> None:
    with pytest.raises(Resolver404):
        resolve(address)
    assert anybody.get(address).status_code == 404


@pytest.mark.django_db
def test_the_admins_sign_in_page_is_served(anybody: APIClient) -> None:
    assert anybody.get("/admin/login/").status_code == 200
    assert anybody.get("/admin/")["Location"].startswith("/admin/login/")


@pytest.mark.parametrize(("address", "target"), [("/", "/sign-in?next=/"), ("/admin", "/admin/")])
def test_a_person_is_led_on(client: Client, address: str, target: str) -> None:
    response = client.get(address)
    assert (response.status_code, response["Location"]) == (302, target)
