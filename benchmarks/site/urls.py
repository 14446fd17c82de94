"""The service's addresses, and two that answer with nothing."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.urls import path
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from transcription_site.urls import urlpatterns as service


class Empty(APIView):
    """What is left is the server, the middleware, the framework and the check of the token."""

    def get(self, request: Request) -> Response:
        """An empty object."""
        return Response({})


def bare(request: HttpRequest) -> HttpResponse:
    """What is left is the server and the middleware."""
    return HttpResponse(b"{}", content_type="application/json")


urlpatterns = [path("empty", Empty.as_view()), path("bare", bare), *service]
