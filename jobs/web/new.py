"""The page that takes recordings in. It announces and sends them by the API, as any caller does."""

from __future__ import annotations

from typing import Any

from django.conf import settings

from jobs import engines
from jobs.models import MAX_CHUNKS
from jobs.web.views import Page


class NewPage(Page):
    """Drop files or speak, choose how they are to be recognised, send."""

    template_name = "web/new.html"
    here = "new"

    def get_context_data(self, **context: Any) -> dict[str, Any]:
        return super().get_context_data(
            limits={
                "chunks": MAX_CHUNKS,
                "chunkBytes": settings.AUDIO_MAX_BYTES,
                "chunkSeconds": settings.AUDIO_MAX_SECONDS,
                "chunkMinutes": settings.AUDIO_MAX_SECONDS // 60,
                "recordingBytes": settings.RECORDING_MAX_BYTES,
                "recordingSeconds": settings.RECORDING_MAX_SECONDS,
            },
            engines=[_shown(name) for name in engines.configured()],
            **context,
        )


def _shown(name: str) -> dict[str, Any]:
    """What the form needs to know of an engine."""
    can = engines.get(name).capabilities
    return {
        "name": name,
        "isDefault": name == settings.ASR_ENGINE,
        "languages": sorted(can.languages) if can.languages is not None else None,
        "detectsLanguage": can.detects_language,
        "vocabulary": can.vocabulary,
        "diarize": can.diarization,
        "pricePerMinute": engines.price_of(name),
    }
