"""The addresses of the pages. Those of the API are fixed: none of these may be one of them."""

from __future__ import annotations

from django.contrib.auth.views import LogoutView
from django.urls import path

from jobs.sign_in import limited
from jobs.web.account import TokensPage, UsagePage, WebhooksPage
from jobs.web.new import NewPage
from jobs.web.transcript import TranscriptPage
from jobs.web.transcripts import DownloadPage, TranscriptsPage
from jobs.web.views import SignIn, catalogue

urlpatterns = [
    path("", TranscriptsPage.as_view(), name="front"),
    path("new", NewPage.as_view(), name="new"),
    path("download", DownloadPage.as_view(), name="download"),
    path("t/<uuid:job_id>", TranscriptPage.as_view(), name="transcript-page"),
    path("account/usage", UsagePage.as_view(), name="usage-page"),
    path("account/tokens", TokensPage.as_view(), name="tokens"),
    path("account/webhooks", WebhooksPage.as_view(), name="webhooks-page"),
    path("sign-in", limited(SignIn.as_view()), name="sign-in"),
    path("sign-out", LogoutView.as_view(), name="sign-out"),
    path("jsi18n", catalogue, name="jsi18n"),
]
