"""UserIndexStamp: who holds it has others wait, even if it was deleted in between."""

from __future__ import annotations

import threading
from functools import partial

import pytest
from django.db import transaction

from jobs.models import UserIndexStamp
from tests.helpers import is_somebody_waiting, together, wait_until

pytestmark = pytest.mark.django_db(transaction=True)


def test_it_is_held_though_it_was_deleted_while_somebody_waited_for_it() -> None:
    UserIndexStamp.renew("alice")
    locked, held = threading.Event(), threading.Event()
    order: list[str] = []

    def delete() -> None:  # as an erasure does
        with transaction.atomic():
            stamp = UserIndexStamp.objects.select_for_update().filter(pk="alice")
            assert stamp.exists()
            locked.set()
            wait_until(is_somebody_waiting)
            stamp.delete()

    def hold(name: str, begin: threading.Event) -> None:
        assert begin.wait(30)
        with transaction.atomic():
            UserIndexStamp.hold("alice")
            order.append(f"{name} has it")
            held.set()
            if name == "first":
                wait_until(lambda: len(order) > 1 or is_somebody_waiting())
            order.append(f"{name} ends")

    first, second = partial(hold, "first", locked), partial(hold, "second", held)
    assert together(delete, first, second) == [None] * 3
    assert order == ["first has it", "first ends", "second has it", "second ends"]


def test_to_hold_it_leaves_it_as_it_is() -> None:
    stamp = UserIndexStamp.renew("alice")
    with transaction.atomic():
        UserIndexStamp.hold("alice")
        UserIndexStamp.hold("bob")
    assert UserIndexStamp.of("alice") == stamp
    assert UserIndexStamp.of("bob") is not None
