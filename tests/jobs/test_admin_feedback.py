"""Ratings and reports in the admin: found, summed, taken away as CSV, deleted, never changed."""

from __future__ import annotations

import csv
import io
import re
from datetime import timedelta
from html import unescape
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from jobs.models import MistakeReport, Rating, from_now
from tests import factories

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("redis_is_empty")]
RATINGS = reverse("admin:jobs_rating_changelist")
REPORTS = reverse("admin:jobs_mistakereport_changelist")


def rating(stars: int = 4, **columns: Any) -> Rating:
    return factories.make_rating(factories.make_completed_job("x"), stars, **columns)


def mistake(kind: str = "wrong_word", **columns: Any) -> MistakeReport:
    return factories.make_mistake(factories.make_completed_job("x"), kind, **columns)


def listed(client: Client, address: str, **query: Any) -> list[Any]:
    return [row.pk for row in client.get(address, query).context["cl"].result_list]


def sums(client: Client, address: str) -> list[list[str]]:
    table = client.get(address).content.decode().partition('id="said"')[2].partition("</table>")[0]
    rows = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in table.split("<tr>")]
    return [[unescape(cell) for cell in row] for row in rows[2:]]


def test_both_lists_show_what_was_said_of_each_engine(admin_client: Client) -> None:
    rating(5, engine="openai", model="whisper-1")
    rating(4, engine="openai", model="whisper-1")
    mistake(engine="openai", model="whisper-1")
    mistake(engine="", model="")
    expected = [["(none)", "-", "0", "-", "1"], ["openai", "whisper-1", "2", "4.50", "1"]]
    assert sums(admin_client, RATINGS) == sums(admin_client, REPORTS) == expected


def test_ratings_are_filtered_and_found(admin_client: Client) -> None:
    good = rating(5, engine="openai", model="whisper-1", comment="All of it, Zoë!")
    bad = rating(1, user_id="bob")
    old = rating(3, time=from_now(-timedelta(days=40)))
    assert listed(admin_client, RATINGS) == [bad.pk, good.pk]
    assert listed(admin_client, RATINGS, period="year") == [old.pk, bad.pk, good.pk]
    assert listed(admin_client, RATINGS, stars__exact=1) == [bad.pk]
    assert listed(admin_client, RATINGS, engine="openai") == [good.pk]
    assert listed(admin_client, RATINGS, model="whisper-1") == [good.pk]
    assert listed(admin_client, RATINGS, q="of IT") == [good.pk]
    assert listed(admin_client, RATINGS, q="bo") == [bad.pk]
    assert listed(admin_client, RATINGS, q=str(good.job_id)) == [good.pk]


def test_reports_are_filtered_and_found(admin_client: Client) -> None:
    word = mistake(heard="Hello word", meant="hello world", index=2)
    time = mistake("wrong_time", engine="openai", comment="a second late")
    assert listed(admin_client, REPORTS, kind__exact="wrong_time") == [time.pk]
    assert listed(admin_client, REPORTS, engine="openai") == [time.pk]
    for text in ("lo word", "WORLD", str(word.job_id)):
        assert listed(admin_client, REPORTS, q=text) == [word.pk]
    assert listed(admin_client, REPORTS, q="late") == [time.pk]
    page = admin_client.get(REPORTS).content.decode()
    assert '<td class="field-part">3</td>' in page
    assert reverse("admin:jobs_job_change", args=[word.job_id]) in page
    one = admin_client.get(reverse("admin:jobs_mistakereport_change", args=[word.pk]))
    assert "Hello word" in one.content.decode()


def test_they_are_taken_away_as_csv_in_which_nothing_is_a_formula(admin_client: Client) -> None:
    word = mistake(heard='=HYPERLINK("x")', meant='a, "b"\nc', comment="@me", index=0)
    other = mistake("other", start_seconds=1.5)
    mistake()  # is not ticked
    chosen = {"action": "export_csv", "_selected_action": [word.pk, other.pk]}
    answer = admin_client.post(REPORTS, chosen)
    assert answer["Content-Type"] == "text/csv; charset=utf-8"
    assert answer["Content-Disposition"] == 'attachment; filename="mistake-reports.csv"'
    last, first = csv.DictReader(io.StringIO(answer.content.decode(), newline=""))
    assert (first["heard"], first["meant"]) == ('\'=HYPERLINK("x")', 'a, "b"\nc')
    assert (first["comment"], first["index"], first["start_seconds"]) == ("'@me", "0", "")
    assert (first["job_id"], first["engine"]) == (str(word.job_id), "scripted")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", first["time"])
    assert (last["kind"], last["index"], last["start_seconds"]) == ("other", "", "1.5")
    (row,) = csv.DictReader(
        io.StringIO(
            admin_client.post(
                RATINGS, {"action": "export_csv", "_selected_action": [rating(2).pk]}
            ).content.decode()
        )
    )
    assert (row["stars"], row["user_id"]) == ("2", "alice")


def test_they_are_deleted_but_not_changed(admin_client: Client) -> None:
    for model, row in (("rating", rating()), ("mistakereport", mistake())):
        change = reverse(f"admin:jobs_{model}_change", args=[row.pk])
        assert admin_client.post(change, {"comment": "mine"}).status_code == 403
        assert admin_client.get(reverse(f"admin:jobs_{model}_add")).status_code == 403
        delete = reverse(f"admin:jobs_{model}_delete", args=[row.pk])
        assert admin_client.post(delete, {"post": "yes"}).status_code == 302
        assert not type(row).objects.exists()


def test_who_may_only_look_deletes_nothing(client: Client) -> None:
    user = factories.make_user("watcher", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename="view_rating"))
    client.force_login(user)
    row = rating()
    assert listed(client, RATINGS) == [row.pk]
    assert client.get(REPORTS).status_code == 403
    delete = reverse("admin:jobs_rating_delete", args=[row.pk])
    assert client.post(delete, {"post": "yes"}).status_code == 403
    client.post(RATINGS, {"action": "delete_selected", "_selected_action": [row.pk], "post": "yes"})
    assert Rating.objects.exists()


def test_however_much_was_said_it_is_summed_by_two_statements(admin_client: Client) -> None:
    for number in (1, 12):
        for n in range(number):
            rating(engine=f"engine-{n}")
            mistake(engine=f"engine-{n}")
        with CaptureQueriesContext(connection) as captured:
            assert admin_client.get(RATINGS).status_code == 200
        grouped = [query["sql"] for query in captured if "GROUP BY" in query["sql"]]
        assert len(grouped) == 2
        assert all('"time"' in sql.partition("WHERE")[2] for sql in grouped)
