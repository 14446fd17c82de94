"""The settings of a system under measurement."""

from __future__ import annotations

from benchmarks.site import instant  # noqa: F401  (registers itself before the options are read)
from transcription_site.settings import *  # noqa: F403
from transcription_site.settings import INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "benchmarks.site"]
ROOT_URLCONF = "benchmarks.site.urls"
