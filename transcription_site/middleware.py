"""What a request must go through before Django's own middleware and the framework see it."""

from __future__ import annotations

import os
import re
from collections.abc import Awaitable, Callable
from inspect import iscoroutinefunction
from typing import Any, Final

from django.conf import settings
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils import translation
from django.utils.cache import patch_vary_headers
from django.utils.decorators import sync_and_async_middleware

_REQUEST_ID: Final = re.compile(r"[0-9a-fA-F]{8}(-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12}")


@sync_and_async_middleware
def body_length_middleware(get_response: Callable[[HttpRequest], Any]) -> Callable[..., Any]:
    """Give a request that came in chunks the length of its body.

    Without a Content-Length REST framework takes it that there is no body.
    """
    return _looking_first(_measure_body, get_response)


@sync_and_async_middleware
def request_id_middleware(get_response: Callable[[HttpRequest], Any]) -> Callable[..., Any]:
    """Forget an X-Request-ID that is no UUID as one is written: it gets one of our own.

    Every log line repeats it, and the library takes one with any number of hyphens.
    """
    return _looking_first(_forget_request_id, get_response)


class PageLanguage:
    """The language that the reader's browser asks for, in the pages; all else speaks English.

    What REST framework answers is a contract, and so are errors of no view: their words may not
    vary with `Accept-Language`.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        with translation.override(settings.LANGUAGE_CODE):
            answer = self._get_response(request)
        if hasattr(request, "LANGUAGE_CODE"):
            answer.headers.setdefault("Content-Language", request.LANGUAGE_CODE)
            patch_vary_headers(answer, ("Accept-Language", "Cookie"))
        return answer

    def process_view(self, request: Any, view: Any, *_: object) -> None:
        if not hasattr(view, "cls"):  # the framework marks its views by it
            request.LANGUAGE_CODE = translation.get_language_from_request(request)
            translation.activate(request.LANGUAGE_CODE)


def _looking_first(
    look: Callable[[HttpRequest], None], get_response: Callable[[HttpRequest], Any]
) -> Callable[..., Any]:
    """Not a class of Django's mixin: that would send every request through a thread, for a look."""
    if iscoroutinefunction(get_response):

        async def answer_async(request: HttpRequest) -> Any:
            look(request)
            answer: Awaitable[Any] = get_response(request)
            return await answer

        return answer_async

    def answer(request: HttpRequest) -> Any:
        look(request)
        return get_response(request)

    return answer


def _forget_request_id(request: HttpRequest) -> None:
    if not _REQUEST_ID.fullmatch(request.META.get("HTTP_X_REQUEST_ID", "")):
        request.META.pop("HTTP_X_REQUEST_ID", None)


def _measure_body(request: HttpRequest) -> None:
    if not isinstance(request, ASGIRequest) or "CONTENT_LENGTH" in request.META:
        return
    body = request._stream  # the whole body, already in a file; a test client has none
    if not body.seekable():
        return
    length = body.seek(0, os.SEEK_END)
    body.seek(0)
    if length:
        request.META["CONTENT_LENGTH"] = str(length)
