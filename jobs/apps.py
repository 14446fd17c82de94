"""The application of jobs: rows, pipeline, actors and edges."""

from __future__ import annotations

from django.apps import AppConfig


class JobsConfig(AppConfig):
    name = "jobs"
    verbose_name = "Transcription"

    def ready(self) -> None:
        from jobs import checks  # noqa: F401, PLC0415  (registers them; models are loaded now)
