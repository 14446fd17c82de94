"""One engine, one file; `asr.registry` names them all."""

from __future__ import annotations
