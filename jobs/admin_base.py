"""What the admin's pages share: they only show, and say what an action did."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final
from uuid import UUID

from django.contrib import admin, messages
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from jobs import tasks
from jobs.admin_lists import BoundedPaginator
from jobs.exports import CONTENT_TYPES
from jobs.models import Job, JobStatus

ACTED_ON_AT_ONCE: Final = 500


class ReadOnly:
    """Pages that only show. Django asks these before it offers or takes anything."""

    paginator: Any = BoundedPaginator
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER  # they count all rows
    list_per_page = 50
    list_max_show_all = 200

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class Numbered:
    """A page of chunks, or of what was done with them: people count from 1, as the exports do."""

    @admin.display(description="part")
    def part(self, row: Any) -> int:
        return int(row.index) + 1


def unbroken(value: object) -> SafeString:
    """The value in one line, however narrow its column."""
    return format_html('<span class="unbroken">{}</span>', value)


def job_link(job_id: UUID) -> SafeString:
    """The job's id in one line, leading to its page."""
    address = reverse("admin:jobs_job_change", args=[job_id])
    return format_html('<a href="{}">{}</a>', address, unbroken(job_id))


def export_links(job: Job) -> str:
    """A link for each format, once there is something to export."""
    if job.status not in {JobStatus.COMPLETED, JobStatus.FAILED}:
        return "-"
    links = (
        (reverse("transcript-export", args=[job.pk, file_format]), file_format)
        for file_format in CONTENT_TYPES
    )
    return format_html_join(" · ", '<a href="{}">{}</a>', links)


class Sender:
    """Sends jobs' messages until the broker fails once: a page does not wait for every job."""

    def __init__(self) -> None:
        self.broker_away = False

    def __call__(self, job_id: UUID) -> bool:
        self.broker_away = self.broker_away or not tasks.dispatch(job_id)
        return not self.broker_away

    def tell(self, page: admin.ModelAdmin[Any], request: HttpRequest) -> None:
        """Say so on the page when what was to be sent was not."""
        if self.broker_away:
            away = "The broker is away: retried chunks start when it is back."
            page.message_user(request, away, messages.WARNING)


def say(
    page: admin.ModelAdmin[Any], request: HttpRequest, done: str, skipped: Counter[str]
) -> None:
    """Say what an action did, and why it did not do it to the others."""
    reasons = ", ".join(f"{number} {reason}" for reason, number in (+skipped).items())
    message = done + (f"; skipped: {reasons}." if reasons else ".")
    page.message_user(request, message, messages.WARNING if reasons else messages.SUCCESS)
