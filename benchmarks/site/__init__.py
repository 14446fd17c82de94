"""Verbatim, and three things to measure it by: an instant engine, an empty actor and view."""
