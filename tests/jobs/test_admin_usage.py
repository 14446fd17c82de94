"""Usage in the admin: the sums, their charts, and the limits of single users."""

from __future__ import annotations

import re
from datetime import date, timedelta
from decimal import Decimal
from html import unescape
from typing import Any
from xml.etree import ElementTree

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from jobs.limits import limits_of
from jobs.models import UsageDay, UserLimits, database_time

pytestmark = pytest.mark.django_db
LIST = reverse("admin:jobs_usageday_changelist")
LIMITS = reverse("admin:jobs_userlimits_changelist")
SVG = "{http://www.w3.org/2000/svg}"


def today() -> date:
    return database_time().date()


def use(days_ago: int = 0, **columns: Any) -> None:
    values = {"user_id": "alice", "engine": "openai", "day": today() - timedelta(days=days_ago)}
    sums = {"calls": 2, "seconds": 90.0, "price_usd": Decimal("0.009")}
    UsageDay.objects.create(**(values | sums | columns))


def picture(page: str, name: str) -> ElementTree.Element:
    """One chart, as any reader of XML sees it."""
    found = re.search(rf'<svg id="{name}".*?</svg>', page, re.DOTALL)
    assert found is not None
    return ElementTree.fromstring(found[0].replace("<svg ", f'<svg xmlns="{SVG[1:-1]}" ', 1))


def sums(page: str) -> list[list[str]]:
    table = page.partition('id="usage"')[2].partition("<tbody>")[2].partition("</tbody>")[0]
    rows = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in table.split("<tr>")]
    return [[unescape(cell) for cell in row] for row in rows[1:]]


def test_usage_is_summed_by_engine_and_drawn_by_day(admin_client: Client) -> None:
    use(3)
    use(1, seconds=180.0, deduplicated_seconds=60.0)
    use(1, engine="deepgram", price_usd=0, unpriced_calls=2)
    page = admin_client.get(LIST).content.decode()
    assert sums(page) == [
        ["deepgram", "2", "1.5", "0.0", "0.0000", "2"],
        ["openai", "4", "4.5", "1.0", "0.0180", "0"],
        ["All", "6", "6.0", "1.0", "0.0180", "2"],
    ]
    days = picture(page, "minutes-by-day").findall(f"{SVG}rect")
    assert [rect.findtext(f"{SVG}title", "").strip() for rect in days] == [
        f"{today() - timedelta(days=3)}: 1.5 minutes",
        f"{today() - timedelta(days=2)}: 0.0 minutes",
        f"{today() - timedelta(days=1)}: 4.5 minutes",
    ]
    assert [rect.get("height") for rect in days] == ["53.33", "0.00", "160.00"]
    prices = picture(page, "price-by-engine").findall(f"{SVG}rect")
    assert [rect.get("width") for rect in prices] == ["0.00", "720.00"]


def test_a_chart_can_be_read_without_being_seen(admin_client: Client) -> None:
    use(engine="<b>evil</b>")
    page = admin_client.get(LIST).content.decode()
    assert "<b>evil" not in page
    for name in ("minutes-by-day", "price-by-engine"):
        chart = picture(page, name)
        assert chart.get("role") == "img"
        labels = {e.get("id") for tag in ("title", "desc") for e in chart.findall(f"{SVG}{tag}")}
        assert labels == set((chart.get("aria-labelledby") or "").split())
        assert chart.findtext(f"{SVG}desc")


def test_the_list_is_of_30_days_and_of_whom_one_asks_for(admin_client: Client) -> None:
    use()
    use(user_id="bob", engine="deepgram")
    use(40)

    def listed(**query: str) -> list[str]:
        return [row[0] for row in sums(admin_client.get(LIST, query).content.decode())]

    assert listed() == ["deepgram", "openai", "All"]
    assert listed(user_id="bob") == ["deepgram", "All"]
    assert listed(q="ali") == ["openai", "All"]
    assert listed(q="nobody") == []
    assert sums(admin_client.get(LIST, {"period": "all"}).content.decode())[-1][1] == "6"


def test_however_many_days_there_are_they_are_summed_by_two_statements(
    admin_client: Client,
) -> None:
    for day in range(20):
        use(day, user_id=f"user{day}")
    with CaptureQueriesContext(connection) as captured:
        assert admin_client.get(LIST).status_code == 200
    assert sum("GROUP BY" in query["sql"] for query in captured) == 2


def test_usage_is_changed_by_nobody(admin_client: Client) -> None:
    use()
    address = reverse("admin:jobs_usageday_change", args=[UsageDay.objects.get().pk])
    assert admin_client.post(address, {"calls": "0"}).status_code == 403
    assert admin_client.get(reverse("admin:jobs_usageday_add")).status_code == 403


def test_a_user_is_given_limits_that_hold_at_once_and_loses_them(admin_client: Client) -> None:
    form = {"user_id": "alice", "jobs_in_flight": "2", "minutes_per_day": "0.5"}
    assert admin_client.post(reverse("admin:jobs_userlimits_add"), form).status_code == 302
    limits = limits_of("alice")
    assert (limits.jobs_in_flight, limits.minutes_per_day) == (2, 0.5)
    assert limits.minutes_per_month is None
    change = reverse("admin:jobs_userlimits_change", args=["alice"])
    admin_client.post(change, {"user_id": "bob", "jobs_in_flight": "3"})
    kept = UserLimits.objects.get()
    assert (kept.user_id, kept.jobs_in_flight, kept.minutes_per_day) == ("alice", 3, None)
    assert "alice" in admin_client.get(LIMITS, {"q": "al"}).content.decode()
    admin_client.post(reverse("admin:jobs_userlimits_delete", args=["alice"]), {"post": "yes"})
    assert limits_of("alice").none_set


@pytest.mark.parametrize(
    "wrong", [{"user_id": "a/b"}, {"jobs_in_flight": "-1"}, {"spending_per_month_usd": "-1"}]
)
def test_limits_that_make_no_sense_are_refused(admin_client: Client, wrong: dict[str, str]) -> None:
    form = {"user_id": "alice"} | wrong
    assert admin_client.post(reverse("admin:jobs_userlimits_add"), form).status_code == 200
    assert not UserLimits.objects.exists()


def test_only_who_may_change_limits_changes_them(client: Client) -> None:
    reader = User.objects.create_user("reader", is_staff=True)
    reader.user_permissions.add(Permission.objects.get(codename="view_userlimits"))
    client.force_login(reader)
    assert client.get(LIMITS).status_code == 200
    assert client.get(reverse("admin:jobs_userlimits_add")).status_code == 403
