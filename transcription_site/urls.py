"""All addresses."""

from __future__ import annotations

from django.contrib import admin
from django.contrib.auth.views import LoginView
from django.urls import include, path
from django.views.generic import RedirectView

from jobs import health
from jobs.sign_in import limited

urlpatterns = [
    path("", include("jobs.web.urls")),
    path("admin", RedirectView.as_view(url="/admin/")),
    path("", include("jobs.api.urls")),
    path("healthz", health.healthz, name="healthz"),
    path("readyz", health.readyz, name="readyz"),
    path("admin/", admin.site.urls),
    # In the place of the framework's own, which takes any number of tries.
    path(
        "api-auth/login/",
        limited(LoginView.as_view(template_name="rest_framework/login.html")),
    ),
    path("api-auth/", include("rest_framework.urls")),
]

handler400 = "transcription_site.problems.bad_request"
handler403 = "transcription_site.problems.permission_denied"
handler404 = "transcription_site.problems.not_found"
handler500 = "transcription_site.problems.server_error"
