"""The ledger's pages in the admin."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from html import unescape
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from jobs.models import EngineCall, from_now
from tests import factories

pytestmark = pytest.mark.django_db
LIST = reverse("admin:jobs_enginecall_changelist")


def call(**columns: Any) -> EngineCall:
    values = {"engine": "openai", "model": "whisper-1", "user_id": "alice", "index": 3}
    job = {"job_id": factories.make_job(user_id=columns.get("user_id", "alice")).pk}
    cost = {"audio_seconds": 12.5, "price_usd": Decimal("0.00125")}
    return EngineCall.objects.create(**(values | job | cost | columns))


def sums(page: Any) -> list[list[str]]:
    """The rows of the table of sums, as they are read."""
    table = page.content.decode().partition('id="sums"')[2].partition("</table>")[0]
    rows = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in table.split("<tr>")]
    return [[unescape(cell) for cell in row] for row in rows[2:]]


def test_calls_are_listed_with_what_they_cost_and_lead_to_their_job(admin_client: Client) -> None:
    made = call()
    page = admin_client.get(LIST).content.decode()
    assert reverse("admin:jobs_job_change", args=[made.job_id]) in page
    assert "0.001250" in page
    assert '<td class="field-part">4</td>' in page
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


def test_a_call_is_shown_with_its_second_its_tokens_and_what_is_not_known(
    admin_client: Client,
) -> None:
    moment = datetime(2020, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    times = {"started_time": moment, "ended_time": moment + timedelta(seconds=2)}
    made = call(**times, price_usd=None, billed_seconds=13.0, input_tokens=7071, output_tokens=82)
    page = admin_client.get(LIST, {"period": "all"}).content.decode()
    row = page.partition('<table id="result_list">')[2]
    for shown in ("2020-01-02 03:04:05<", ">13.0<", ">7071<", ">82<", ">unknown<"):
        assert shown in row
    one = admin_client.get(reverse("admin:jobs_enginecall_change", args=[made.pk]))
    for shown in ("2020-01-02 03:04:05<", "2020-01-02 03:04:07<", "7071", "82", "unknown"):
        assert shown in one.content.decode()


def test_calls_are_summed_by_engine_and_outcome_and_none_of_unknown_price_counts_as_free(
    admin_client: Client,
) -> None:
    call(outcome="answered", audio_seconds=90.0, price_usd=Decimal("0.009"))
    call(outcome="answered", audio_seconds=30.0, price_usd=Decimal("0.003"), billed_seconds=30.0)
    call(outcome="answered", price_usd=None, audio_seconds=60.0, input_tokens=600, output_tokens=9)
    call(audio_seconds=60.0, price_usd=Decimal("0.006"))
    call(engine="deepgram", outcome="answered", price_usd=None, audio_seconds=6.0)
    call(engine="pocketsphinx", outcome="answered", price_usd=Decimal(0), audio_seconds=6.0)
    assert sums(admin_client.get(LIST)) == [
        ["deepgram, answered", "1", "0.1", "-", "-", "-", "unknown", "1"],
        ["openai, answered", "3", "3.0", "0.5", "600", "9", "0.0120", "1"],
        ["openai, unknown", "1", "1.0", "-", "-", "-", "0.0060", "0"],
        ["pocketsphinx, answered", "1", "0.1", "-", "-", "-", "0.0000", "0"],
        ["All", "6", "4.2", "0.5", "600", "9", "0.0180", "2"],
    ]


def test_the_sums_are_of_what_is_listed_and_without_a_choice_of_the_last_30_days(
    admin_client: Client,
) -> None:
    call()
    call(user_id="bob", engine="deepgram", outcome="answered")
    call(user_id="old", started_time=from_now(-timedelta(days=31)))
    call(user_id="ancient", started_time=from_now(-timedelta(days=366)))

    def listed(**query: str) -> tuple[int, list[str]]:
        page = admin_client.get(LIST, query)
        *rows, total = sums(page) or [["", "0"]]
        assert sum(int(row[1]) for row in rows) == int(total[1])
        return len(page.context["cl"].result_list), [row[0] for row in rows]

    assert listed() == (2, ["deepgram, answered", "openai, unknown"])
    assert listed(engine="deepgram") == (1, ["deepgram, answered"])
    assert listed(outcome__exact="unknown") == (1, ["openai, unknown"])
    assert listed(q="bob") == (1, ["deepgram, answered"])
    assert listed(q="old") == (0, [])
    assert listed(q="old", period="year") == (1, ["openai, unknown"])
    assert listed(period="day") == listed(period="week") == listed()
    assert listed(period="nonsense") == listed()
    assert [listed(period=period)[0] for period in ("year", "all")] == [3, 4]
    page = admin_client.get(LIST).content.decode()
    assert "list and sums cover the last 30 days" in page
    assert re.search(r'<li class="selected">\s*<a[^>]*>Last 30 days', page)


def test_however_many_calls_there_are_they_are_summed_by_one_statement(
    admin_client: Client,
) -> None:
    for number in (1, 30):
        for _ in range(number):
            call(engine=f"engine-{number}")
        with CaptureQueriesContext(
            connection,
        ) as captured:
            assert admin_client.get(LIST).status_code == 200
        grouped = [query for query in captured if "GROUP BY" in query["sql"]]
        assert len(grouped) == 1
        assert "started_time" in grouped[0]["sql"].partition("WHERE")[2]


def test_nothing_in_the_ledger_is_changed_or_deleted(admin_client: Client) -> None:
    made = call()
    address = reverse("admin:jobs_enginecall_change", args=[made.pk])
    assert admin_client.post(address, {"outcome": "answered"}).status_code == 403
    removal = reverse("admin:jobs_enginecall_delete", args=[made.pk])
    assert admin_client.post(removal, {"post": "yes"}).status_code == 403
    assert EngineCall.objects.get().outcome == "unknown"
