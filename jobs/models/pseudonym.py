"""What stands for the name of a user whose data were erased."""

from __future__ import annotations

from django.utils.crypto import salted_hmac


def pseudonym(user_id: str) -> str:
    """What stands for an erased user's name in rows that are kept: always the same for a name.

    No user can bear it, for its colon. It is made with SECRET_KEY: nobody else can tell whose.
    """
    return f"erased:{salted_hmac('jobs.erasure', user_id, algorithm='sha256').hexdigest()[:40]}"
