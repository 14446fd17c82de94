"""The application of jobs: rows, pipeline, actors and edges."""

from __future__ import annotations

from django.apps import AppConfig


class JobsConfig(AppConfig):
    name = "jobs"
    verbose_name = "Transcription"
