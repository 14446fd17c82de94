"""The ledger's pages in the admin."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from jobs.models import EngineCall
from tests import factories

pytestmark = pytest.mark.django_db
LIST = reverse("admin:jobs_enginecall_changelist")


def call(**columns: Any) -> EngineCall:
    values = {"engine": "openai", "model": "whisper-1", "user_id": "alice", "index": 3}
    job = {"job_id": factories.make_job(user_id=columns.get("user_id", "alice")).pk}
    cost = {"audio_seconds": 12.5, "price_usd": Decimal("0.00125")}
    return EngineCall.objects.create(**(values | job | cost | columns))


def test_calls_are_listed_with_what_they_cost_and_lead_to_their_job(admin_client: Client) -> None:
    made = call()
    page = admin_client.get(LIST).content.decode()
    assert reverse("admin:jobs_job_change", args=[made.job_id]) in page
    assert "0.001250" in page
    assert "unknown" in page.lower()
    shown = admin_client.get(reverse("admin:jobs_enginecall_change", args=[made.pk]))
    assert "12.5" in shown.content.decode()


def test_calls_are_found_by_user_and_by_job(admin_client: Client) -> None:
    made, other = call(), call(user_id="bob")

    def found(term: str) -> list[int]:
        rows = admin_client.get(LIST, {"q": term}).context["cl"].result_list
        return [row.pk for row in rows]

    assert found("") == [other.pk, made.pk]
    assert found("ali") == [made.pk]
    assert found(str(other.job_id)) == [other.pk]
    assert found("nobody") == []


def test_nothing_in_the_ledger_is_changed_or_deleted(admin_client: Client) -> None:
    made = call()
    address = reverse("admin:jobs_enginecall_change", args=[made.pk])
    assert admin_client.post(address, {"outcome": "answered"}).status_code == 403
    removal = reverse("admin:jobs_enginecall_delete", args=[made.pk])
    assert admin_client.post(removal, {"post": "yes"}).status_code == 403
    assert EngineCall.objects.get().outcome == "unknown"
