"""Every page of the admin is told of ids that cannot be one, and fails at none."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
from django.contrib import admin
from django.contrib.auth.models import User
from django.test import Client

from jobs.models import Job

pytestmark = pytest.mark.django_db(transaction=True)

NO_IDS = ["", "abc", "1e5", "9" * 25, "\0", "é", "0/../1"]


@pytest.fixture
def operator(admin_client: Client) -> Client:
    admin_client.raise_request_exception = False
    return admin_client


def list_of(model: Any) -> str:
    return f"/admin/{model._meta.app_label}/{model._meta.model_name}/"


@pytest.mark.parametrize("text", NO_IDS, ids=repr)
def test_no_action_and_no_page_fails_at_an_id_that_is_none(operator: Client, text: str) -> None:
    codes: dict[str, int] = {}
    for model, page in admin.site._registry.items():
        for action in [*(page.actions or ()), "delete_selected"]:
            data = {"action": action, "_selected_action": [text]}
            answer = operator.post(list_of(model), data)
            codes[f"{model.__name__} {action}"] = answer.status_code
        for what in ("change", "delete", "history"):
            address = f"{list_of(model)}{quote(text)}/{what}/"
            codes[f"{model.__name__} {what}"] = operator.get(address).status_code
            codes[f"{model.__name__} POST {what}"] = operator.post(address).status_code
    assert len(codes) > 50
    assert not {name: code for name, code in codes.items() if code >= 500}
    assert codes["Job retry"] == codes["DeadLetter retry"] == 404
    assert codes["User delete_selected"] == 404


@pytest.mark.parametrize("model", [Job, User])
def test_what_may_be_an_id_and_is_none_is_told_as_ever(operator: Client, model: Any) -> None:
    key = "01890000-0000-7000-8000-000000000000" if model is Job else "4711"
    answer = operator.get(f"{list_of(model)}{key}/change/", follow=True)
    assert answer.status_code == 200
    assert "Perhaps it was deleted?" in answer.content.decode()
