"""What a request must go through before Django's own middleware and the framework see it."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from inspect import iscoroutinefunction
from typing import Any

from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest
from django.utils.decorators import sync_and_async_middleware


@sync_and_async_middleware
def body_length_middleware(get_response: Callable[[HttpRequest], Any]) -> Callable[..., Any]:
    """Give a request that came in chunks the length of its body.

    Without a Content-Length REST framework takes it that there is no body. Not a class of
    Django's mixin: that would send every request through a thread, for one look at a file.
    """
    if iscoroutinefunction(get_response):

        async def answer_async(request: HttpRequest) -> Any:
            _measure_body(request)
            answer: Awaitable[Any] = get_response(request)
            return await answer

        return answer_async

    def answer(request: HttpRequest) -> Any:
        _measure_body(request)
        return get_response(request)

    return answer


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
