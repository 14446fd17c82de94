"""Jobs with real files: what was uploaded, and what others put under the audio root."""

from __future__ import annotations

from pathlib import Path

from django.core.files.uploadedfile import SimpleUploadedFile

from jobs.models import Job
from jobs.submission import Submission, submit
from tests import factories


def upload(*paths: str, chunks: int = 1, user: str = "alice", key: str | None = None) -> Job:
    """A job made of uploads, or of files that are there."""
    files = tuple(SimpleUploadedFile("x.wav", factories.wav()) for _ in range(chunks))
    asked = Submission(
        user_id=user,
        audio_paths=paths,
        uploads=() if paths else files,
        own_folder_only=False,
        title="private",
    )
    return Job.objects.get(pk=submit(asked, caller=user, idempotency_key=key).job_id)


def paths_of(job: Job) -> list[str]:
    return list(job.chunks.order_by("index").values_list("audio_path", flat=True))


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
