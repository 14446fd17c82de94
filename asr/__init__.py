"""Sound in, segments out: the engines and what they need. Knows nothing of Django or of jobs."""

from __future__ import annotations
