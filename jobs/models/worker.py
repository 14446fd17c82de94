"""WorkerProcess: one row per process that claims chunks or sweeps, renewed while it lives."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Final

from django.db import models

from jobs.models.clock import from_now

SILENCE_LIMIT = timedelta(seconds=15)
SWEEPER: Final = "sweeper"  # among the queues of a process that sweeps


class WorkerProcessQuerySet(models.QuerySet["WorkerProcess"]):
    """Workers by whether anything was heard of them lately."""

    def alive(self) -> WorkerProcessQuerySet:
        return self.filter(last_seen__gte=from_now(-SILENCE_LIMIT))

    def alive_per_queue(self) -> Counter[str]:
        """How many living processes serve each queue."""
        served = self.alive().values_list("queues", flat=True)
        return Counter(queue for queues in served for queue in queues.split(",") if queue)

    def long_gone(self) -> WorkerProcessQuerySet:
        return self.filter(last_seen__lt=from_now(-timedelta(hours=1)))


class WorkerProcess(models.Model):
    """A process that claims chunks or sweeps. `pid` has a meaning only within `pid_space`."""

    id = models.UUIDField(primary_key=True)
    hostname = models.CharField(max_length=255)
    pid_space = models.CharField(max_length=100, blank=True)
    pid = models.PositiveIntegerField()
    pid_started = models.BigIntegerField(help_text="Clock ticks from boot to the process's start.")
    queues = models.CharField(max_length=200, blank=True)
    started_time = models.DateTimeField()
    last_seen = models.DateTimeField()

    objects = WorkerProcessQuerySet.as_manager()

    class Meta:
        verbose_name_plural = "worker processes"

    def __str__(self) -> str:
        return f"{self.hostname}:{self.pid}"
