"""Search over the texts of transcripts: what is kept for it, and how it is asked.

Whether a text matches is one rule for every database: each term is a part of its folded words (see
`words`). The databases differ only in their index of single words, which the migration makes and
they keep themselves; it finds the few rows that a rare word stands in.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final
from uuid import UUID

from django.db import connection, models, transaction
from django.db.models import Q

from jobs.models import Job, SearchText, Transcript, UserJobIndex
from jobs.search_words import Term, fold

NEWEST: Final = 500  # jobs whose words are looked at before the index is asked


def keep(job: Job, transcript: Transcript) -> None:
    """Let an ended job be found by this text and no other, in the caller's transaction.

    To be called by whoever writes a transcript's text.
    """
    row = SearchText(
        job=transcript, user_id=job.user_id, job_status=job.status, words=fold(transcript.text)
    )
    SearchText.objects.bulk_create(
        [row],
        update_conflicts=True,
        update_fields=["user_id", "job_status", "words"],
        unique_fields=["job"],
    )


class Found:
    """The jobs that match, in the little of a queryset's manner that a paginator uses.

    A word that is common stands in many of the newest jobs: their words are read until there are
    enough. A word that is not is looked up in the index: then its hits are sorted, however many
    there are, but their texts are read only to find a phrase.
    """

    def __init__(
        self,
        terms: Sequence[Term],
        user_id: str | None,
        statuses: Sequence[str],
        order: str = "-job_id",
        bounds: dict[str, Any] | None = None,
    ) -> None:
        """`terms` are not empty, and not all of them excluded."""
        self._asked = terms, user_id, statuses
        self._order = order
        self._bounds = bounds or {}

    def order_by(self, order: str) -> Found:
        """By the job's id, forwards or backwards."""
        return Found(*self._asked, order, self._bounds)

    def filter(self, **bounds: Any) -> Found:
        """Bounds of the job's id."""
        return Found(*self._asked, self._order, self._bounds | bounds)

    def __getitem__(self, wanted: slice) -> list[UserJobIndex]:
        job_ids = self._newest(wanted.stop)
        if job_ids is None:
            job_ids = self._by_index(wanted.stop)
        return [UserJobIndex(job_id=job_id) for job_id in job_ids[wanted]]

    def _newest(self, count: int) -> list[UUID] | None:
        """Those among the first few jobs; None when there are not enough of them."""
        terms, user_id, statuses = self._asked
        rows = UserJobIndex.objects.search(user_id, statuses).order_by(self._order)
        first = list(rows.filter(**self._bounds).values_list("job_id", flat=True)[:NEWEST])
        matching = SearchText.objects.filter(_stand_in_words(terms), job_id__in=first)
        found = list(matching.order_by(self._order).values_list("job_id", flat=True)[:count])
        return found if len(found) == count or len(first) < NEWEST else None

    def _by_index(self, count: int) -> list[UUID]:
        terms, user_id, statuses = self._asked
        phrases = [term for term in terms if len(term.words) > 1]
        rows = SearchText.objects.filter(_InIndex(terms, user_id), _stand_in_words(phrases))
        rows = rows.filter(**self._bounds)
        if user_id is not None:
            rows = rows.filter(user_id=user_id)
        if statuses:
            rows = rows.filter(job_status__in=statuses)
        with _by_the_index_alone():
            return list(rows.order_by(self._order).values_list("job_id", flat=True)[:count])


def _stand_in_words(terms: Sequence[Term]) -> Q:
    """That a row matches. Parts hold nothing that LIKE takes for more than it is."""
    condition = Q()
    for term in terms:
        stands = Q(words__contains=term.part)
        condition &= ~stands if term.excluded else stands
    return condition


class _InIndex(models.Func):
    """That the index has a row's words; of phrases it knows only the words."""

    output_field = models.BooleanField()

    def __init__(self, terms: Sequence[Term], user_id: str | None) -> None:
        super().__init__()
        self._terms = [term for term in terms if not term.excluded or len(term.words) == 1]
        self._user_id = user_id

    def as_postgresql(self, *_: Any, **__: Any) -> Any:
        """The user stands in the index as a word that no text has."""
        asked = [f"'@{self._user_id}'"] if self._user_id is not None else []
        asked += [
            f"{'!' if excluded else ''}'{word}'{':*' if goes_on else ''}"
            for word, excluded, goes_on in _single(self._terms)
        ]
        return "jobs_searchtext.word_index @@ %s::tsquery", [" & ".join(asked)]

    def as_sqlite(self, *_: Any, **__: Any) -> Any:
        """FTS5: its NOT has two sides."""
        named: list[str] = []
        excluded: list[str] = []
        for word, is_excluded, goes_on in _single(self._terms):
            (excluded if is_excluded else named).append(f'"{word}"{"*" if goes_on else ""}')
        asked = " NOT ".join([f"({' AND '.join(named)})", *excluded])
        index = "SELECT rowid FROM jobs_wordindex WHERE jobs_wordindex MATCH %s"
        return f"jobs_searchtext.id IN ({index})", [asked]


def _single(terms: Sequence[Term]) -> Iterator[tuple[str, bool, bool]]:
    """Each word, whether it is excluded, and whether it may go on."""
    for term in terms:
        for word in term.words[:-1]:
            yield word, term.excluded, False
        yield term.words[-1], term.excluded, term.is_beginning


@contextmanager
def _by_the_index_alone() -> Iterator[None]:
    """PostgreSQL guesses how many rows have a word of one user's; a wrong guess reads them all."""
    if connection.vendor != "postgresql":
        yield
        return
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL enable_seqscan = off")
            cursor.execute("SET LOCAL enable_indexscan = off")  # but for bitmaps of one
        yield
