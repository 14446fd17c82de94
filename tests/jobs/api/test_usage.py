"""GET /usage: sums by engine and day, whose they are, and what is left of the limits."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from rest_framework.test import APIClient

from jobs import pipeline
from jobs.models import EngineCall, UsageDay, UserLimits, database_time
from tests import factories
from tests.scripted import ScriptedEngine

pytestmark = pytest.mark.django_db
NOTHING = {
    "calls": 0,
    "minutes": 0.0,
    "deduplicatedMinutes": 0.0,
    "priceUsd": 0.0,
    "unpricedCalls": 0,
}
NO_LIMITS = dict.fromkeys(
    ("minutesPerDay", "minutesPerMonth", "jobsInFlight", "uploadBytes", "spendingPerMonthUsd")
)


def use(day: str = "2026-02-03", user_id: str = "alice", **columns: Any) -> None:
    began = datetime.fromisoformat(day).replace(hour=12, tzinfo=UTC)
    values = {"user_id": user_id, "engine": "openai", "index": 0, "started_time": began}
    cost = {"audio_seconds": 90.0, "price_usd": Decimal("0.009")}
    EngineCall.objects.open([EngineCall(job_id=uuid4(), **(values | cost | columns))])


def get(client: APIClient, **query: str) -> dict[str, Any]:
    response = client.get("/usage", query)
    assert response.status_code == 200, response.content
    body: dict[str, Any] = response.json()
    return body


def test_usage_is_summed_in_all_by_engine_and_by_day(alice: APIClient) -> None:
    use("2026-02-01")
    use("2026-02-03")
    use("2026-02-03", engine="deepgram", price_usd=None, audio_seconds=30.0)
    use("2026-01-31")
    use("2026-02-03", user_id="bob")
    UsageDay.objects.filter(user_id="alice", day="2026-02-01").update(deduplicated_seconds=60.0)
    found = get(alice, **{"from": "2026-02-01", "to": "2026-02-03"})
    deepgram = NOTHING | {"calls": 1, "minutes": 0.5, "unpricedCalls": 1}
    first = NOTHING | {"calls": 1, "minutes": 1.5, "priceUsd": 0.009, "deduplicatedMinutes": 1.0}
    assert found == {
        "userId": "alice",
        "from": "2026-02-01",
        "to": "2026-02-03",
        "total": {
            "calls": 3,
            "minutes": 3.5,
            "deduplicatedMinutes": 1.0,
            "priceUsd": 0.018,
            "unpricedCalls": 1,
        },
        "byEngine": [
            {"engine": "deepgram", **deepgram},
            {"engine": "openai", **first, "calls": 2, "minutes": 3.0, "priceUsd": 0.018},
        ],
        "byDay": [
            {"day": "2026-02-01", **first},
            {
                "day": "2026-02-03",
                **deepgram,
                "calls": 2,
                "minutes": 2.0,
                "priceUsd": 0.009,
            },
        ],
        "limits": NO_LIMITS,
    }


def test_what_the_pipeline_did_is_found(alice: APIClient, script: ScriptedEngine) -> None:
    for _ in range(2):
        job = factories.make_job()
        job.chunks.update(audio_path=factories.put_audio("alice/a.wav", factories.wav(0.6)))
        assert pipeline.transcribe(job.pk, 0) is None
    assert get(alice)["byEngine"] == [
        {
            "engine": "scripted",
            "calls": 1,
            "minutes": 0.01,
            "deduplicatedMinutes": 0.01,
            "priceUsd": 0.0,
            "unpricedCalls": 1,
        }
    ]


@pytest.mark.parametrize(
    ("query", "span"),
    [
        ({"from": "2024-02-10"}, ("2024-02-10", "2024-02-29")),
        ({"to": "2024-02-10"}, ("2024-02-01", "2024-02-10")),
        ({"from": "2024-02-10", "to": "2024-02-10"}, ("2024-02-10", "2024-02-10")),
        ({"from": "9999-12-31"}, ("9999-12-31", "9999-12-31")),
        ({"from": "2024-01-01", "to": "2024-12-31"}, ("2024-01-01", "2024-12-31")),
    ],
)
def test_an_end_that_is_left_out_is_that_of_the_month(
    alice: APIClient, query: dict[str, str], span: tuple[str, str]
) -> None:
    found = get(alice, **query)
    assert (found["from"], found["to"]) == span
    assert (found["total"], found["byEngine"], found["byDay"]) == (NOTHING, [], [])


def test_without_a_span_it_is_this_month(alice: APIClient) -> None:
    today = database_time().date()
    use(today.isoformat())
    use((today.replace(day=1) - timedelta(days=1)).isoformat())
    found = get(alice)
    assert found["from"] == today.replace(day=1).isoformat()
    assert found["to"][:7] == found["from"][:7]
    assert [row["day"] for row in found["byDay"]] == [today.isoformat()]


@pytest.mark.parametrize(
    ("query", "attr"),
    [
        ({"from": "yesterday"}, "from"),
        ({"to": ""}, "to"),
        ({"from": "2026-02-02", "to": "2026-02-01"}, "to"),
        ({"from": "2026-01-01", "to": "2027-01-02"}, "to"),
        ({"userId": "a/b"}, "userId"),
        ({"userId": ""}, "userId"),
    ],
)
def test_what_is_no_span_and_no_user_is_refused(
    service: APIClient, query: dict[str, str], attr: str
) -> None:
    response = service.get("/usage", query)
    assert response.status_code == 400
    assert [error["attr"] for error in response.json()["errors"]] == [attr]


def test_a_user_sees_its_own_and_a_service_everybodys(
    alice: APIClient, service: APIClient, anybody: APIClient
) -> None:
    use(user_id="alice")
    use(user_id="bob")
    span = {"from": "2026-02-01"}
    assert get(alice, userId="alice", **span)["total"]["calls"] == 1
    everybodys = get(service, **span)
    assert (everybodys["userId"], everybodys["total"]["calls"]) == (None, 2)
    assert get(service, userId="bob", **span)["total"]["calls"] == 1
    assert get(service, userId="nobody", **span)["total"] == NOTHING
    response = alice.get("/usage", {"userId": "bob"})
    assert response.status_code == 403
    assert response.json()["errors"][0]["attr"] == "userId"
    assert anybody.get("/usage").status_code == 401


def test_limits_are_shown_with_what_is_left_of_them(
    alice: APIClient, service: APIClient, settings: Any
) -> None:
    settings.QUOTA_MINUTES_PER_DAY = 10.0
    settings.QUOTA_JOBS_IN_FLIGHT = 3
    settings.SPENDING_CAP_USD_PER_MONTH = Decimal(100)
    UserLimits.objects.create(user_id="alice", spending_per_month_usd=Decimal("0.01"))
    now = database_time()
    use(now.date().isoformat())
    use(now.date().isoformat(), user_id="bob")
    factories.make_job()
    tomorrow = (now.date() + timedelta(days=1)).isoformat()
    limits = get(alice)["limits"]
    assert limits["minutesPerDay"] == {
        "limit": 10.0,
        "used": 1.5,
        "remaining": 8.5,
        "resetTime": f"{tomorrow}T00:00:00Z",
    }
    assert limits["minutesPerMonth"] is None
    assert limits["jobsInFlight"] == {
        "limit": 3.0,
        "used": 1.0,
        "remaining": 2.0,
        "resetTime": None,
    }
    spending = limits["spendingPerMonthUsd"]
    assert (spending["limit"], spending["used"], spending["remaining"]) == (0.01, 0.009, 0.001)
    assert spending["resetTime"].endswith("-01T00:00:00Z")
    limits = get(service)["limits"]
    assert limits["spendingPerMonthUsd"]["used"] == 0.018
    assert {name for name, limit in limits.items() if limit} == {"spendingPerMonthUsd"}


def test_however_much_was_used_it_takes_the_same_statements(alice: APIClient) -> None:
    counts = []
    for days in (1, 20):
        for day in range(days):
            use(f"2026-02-{day + 1:02d}", engine=f"engine{day}")
        with CaptureQueriesContext(connection) as captured:
            get(alice, **{"from": "2026-02-01"})
        counts.append(len(captured))
    assert counts == [5, 5]  # the token, the time, and three sums


def test_a_refused_submission_says_when_to_come_again(alice: APIClient, settings: Any) -> None:
    settings.QUOTA_JOBS_IN_FLIGHT = 0
    path = factories.put_audio("alice/a.wav")
    response = alice.post("/transcribe", {"audioChunkPaths": [path]})
    assert (response.status_code, response["Retry-After"]) == (429, "30")
    assert response.json() == {
        "type": "client_error",
        "errors": [
            {
                "code": "quota_exceeded",
                "detail": "The quota of 0 jobs in flight is reached; there is room when one of"
                " them ends.",
                "attr": None,
            }
        ],
    }
