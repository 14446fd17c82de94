"""Measurements. Each prints ratios of one run: machines differ, and are seldom idle."""

from __future__ import annotations
