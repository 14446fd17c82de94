"""The user index: userId + jobStatus → jobs, without touching the jobs table."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID, uuid4

from django.db import models

from jobs.models.job import USER_ID_LENGTH, Job
from jobs.models.states import JobStatus


class UserJobIndexQuerySet(models.QuerySet["UserJobIndex"]):
    """Searches, newest first: ids are UUIDs of version 7 and sort by time."""

    def search(self, user_id: str | None, statuses: Sequence[str]) -> UserJobIndexQuerySet:
        found = self.order_by("-job_id")
        if user_id is not None:
            found = found.filter(user_id=user_id)
        if len(statuses) == 1:
            return found.filter(job_status=statuses[0])
        return found.filter(job_status__in=statuses) if statuses else found


class UserJobIndex(models.Model):
    """One row per job, written in the transaction that changes the job."""

    job = models.OneToOneField(
        Job, on_delete=models.CASCADE, primary_key=True, related_name="user_index"
    )
    user_id = models.CharField(max_length=USER_ID_LENGTH)
    job_status = models.CharField(max_length=16, choices=JobStatus)
    submitted_time = models.DateTimeField()

    objects = UserJobIndexQuerySet.as_manager()

    class Meta:
        verbose_name = "user index entry"
        verbose_name_plural = "user index"
        constraints = [
            models.CheckConstraint(
                condition=models.Q(job_status__in=JobStatus.values), name="index_status_is_known"
            )
        ]
        indexes = [
            models.Index(
                fields=["user_id", "job_status", "-job"], name="search_by_user_and_status"
            ),
            models.Index(fields=["user_id", "-job"], name="search_by_user"),
            models.Index(fields=["job_status", "-job"], name="search_by_status"),
        ]

    def __str__(self) -> str:
        return f"{self.user_id} {self.job_status} {self.job_id}"


class UserIndexStamp(models.Model):
    """Changes with every change of a user's part of the index: the version of cached pages."""

    user_id = models.CharField(max_length=USER_ID_LENGTH, primary_key=True)
    stamp = models.UUIDField()

    def __str__(self) -> str:
        return self.user_id

    @staticmethod
    def renew(user_id: str) -> UUID:
        """Make pages cached so far unreachable; in one statement, in the caller's transaction."""
        new = UserIndexStamp(user_id=user_id, stamp=uuid4())
        UserIndexStamp.objects.bulk_create(
            [new], update_conflicts=True, update_fields=["stamp"], unique_fields=["user_id"]
        )
        return new.stamp

    @staticmethod
    def hold(user_id: str) -> None:
        """Have whoever else holds or renews it wait for the end of the caller's transaction.

        For what a user may have a number of, as it keeps two from being counted and made at once.
        """
        held = UserIndexStamp.objects.select_for_update().values_list("pk")
        while not list(held.filter(pk=user_id)):  # as often as an erasure deletes it in between
            new = UserIndexStamp(user_id=user_id, stamp=uuid4())
            UserIndexStamp.objects.bulk_create([new], ignore_conflicts=True)

    @staticmethod
    def of(user_id: str) -> UUID | None:
        """The present stamp; None where there is none, and then the user has no job."""
        return UserIndexStamp.objects.filter(pk=user_id).values_list("stamp", flat=True).first()
