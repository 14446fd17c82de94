"""The admin site of the project takes the place of Django's own."""

from __future__ import annotations

from django.contrib.admin.apps import AdminConfig


class VerbatimAdminConfig(AdminConfig):
    default_site = "jobs.admin_site.VerbatimAdminSite"
