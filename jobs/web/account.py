"""What one has used, and the keys to one's account: tokens and webhooks."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any, Final

from django import forms
from django.contrib import messages
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from jobs import charts, webhooks
from jobs.address_guard import UrlNotAllowedError
from jobs.models import (
    URL_LENGTH,
    AuthToken,
    WebhookEndpoint,
    database_time,
    validate_user_id,
)
from jobs.usage import usage
from jobs.web.views import Page

MAX_TOKENS: Final = 50  # of one's own; a page is no place for more
MAX_DAYS: Final = 3650
LIMITS: Final = {
    "minutesPerDay": gettext_lazy("Minutes of sound a day"),
    "minutesPerMonth": gettext_lazy("Minutes of sound a month"),
    "jobsInFlight": gettext_lazy("Transcripts in progress"),
    "uploadBytes": gettext_lazy("Bytes handed in and not used yet"),
    "spendingPerMonthUsd": gettext_lazy("Spending a month, in USD"),
}


class UsagePage(Page):
    """Minutes and prices of a month, and what is left of the limits."""

    template_name = "web/usage.html"
    here = "usage"

    def get_context_data(self, **context: Any) -> dict[str, Any]:
        first = self._month()
        used = usage(self.user_id, first, None)
        days = {row["day"]: row["minutes"] for row in used["byDay"]}
        last = date.fromisoformat(used["to"])
        every = [first + timedelta(days=n) for n in range((last - first).days + 1)]
        return super().get_context_data(
            used=used,
            limits=[(LIMITS[name], limit) for name, limit in used["limits"].items() if limit],
            month=first,
            month_before=(first - timedelta(days=1)).replace(day=1),
            month_after=None if last >= database_time().date() else last + timedelta(days=1),
            minutes=charts.columns(
                [(day.isoformat(), days.get(day.isoformat(), 0.0)) for day in every]
            ),
            engines=charts.rows([(row["engine"], row["minutes"]) for row in used["byEngine"]]),
            engines_height=int(charts.ROW * len(used["byEngine"])),
            **context,
        )

    def _month(self) -> date:
        """The first day of the month that is asked for, else of this one."""
        try:
            asked = date.fromisoformat(f"{self.request.GET.get('month', '')}-01")
        except ValueError:
            asked = date.min
        return asked if 2000 <= asked.year < 9999 else database_time().date().replace(day=1)


class TokenForm(forms.Form):
    """How long a new token is to live."""

    days = forms.IntegerField(min_value=1, max_value=MAX_DAYS, required=False)


class TokensPage(Page):
    """One's tokens, by their first characters: a whole one is shown once, when it is made."""

    template_name = "web/tokens.html"
    here = "tokens"

    def get_context_data(self, **context: Any) -> dict[str, Any]:
        context = {"form": TokenForm(), "new_token": None, **context}
        return super().get_context_data(tokens=self._own(), **context)

    def post(self, request: HttpRequest) -> HttpResponse:
        """Make one, or revoke one."""
        if revoked := request.POST.get("revoke"):
            AuthToken.objects.filter(user=request.user, pk=revoked).delete()
            messages.success(request, _("The token is revoked."))
            return redirect("tokens")
        form = TokenForm(request.POST)
        if not form.is_valid():
            return self.render_to_response(self.get_context_data(form=form))
        try:
            validate_user_id(self.user_id)
        except ValidationError as error:
            form.add_error(None, error)
            return self.render_to_response(self.get_context_data(form=form))
        if self._own().count() >= MAX_TOKENS:
            form.add_error(None, _("There are too many; revoke one first."))
            return self.render_to_response(self.get_context_data(form=form))
        days = form.cleaned_data["days"]
        expiry = timedelta(days=days) if days else None
        made: tuple[Any, str] = AuthToken.objects.create(user=request.user, expiry=expiry)
        # In this very answer and nowhere else: a redirect would have to keep it somewhere.
        return self.render_to_response(self.get_context_data(new_token=made[1]))

    def _own(self) -> Any:
        return AuthToken.objects.filter(user=self.request.user).order_by("-created")


class WebhookForm(forms.Form):
    """Where one is to be told."""

    url = forms.CharField(
        max_length=URL_LENGTH,
        error_messages={"required": gettext_lazy("Give an address.")},
    )


class WebhooksPage(Page):
    """Who is told when one's jobs end."""

    template_name = "web/webhooks.html"
    here = "webhooks"

    def get_context_data(self, **context: Any) -> dict[str, Any]:
        context = {"form": WebhookForm(), "shown": None, **context}
        return super().get_context_data(endpoints=self._own().order_by("-id"), **context)

    def post(self, request: HttpRequest) -> HttpResponse:
        """Add an endpoint, or do something to one: show its secret, switch it, delete it."""
        act, of = request.POST.get("act", ""), request.POST.get("id", "")
        if act in _ACTS:
            return self._act(act, of)
        form = WebhookForm(request.POST)
        if form.is_valid():
            try:
                webhooks.create(self.user_id, form.cleaned_data["url"])
                return redirect("webhooks-page")
            except UrlNotAllowedError as error:
                form.add_error("url", str(error))
            except webhooks.TooManyWebhooksError:
                form.add_error("url", _("There are too many; delete one first."))
        return self.render_to_response(self.get_context_data(form=form))

    def _act(self, act: str, of: str) -> HttpResponse:
        endpoint = next((each for each in self._own() if str(each.pk) == of), None)
        if endpoint is None:
            return redirect("webhooks-page")
        if act == "secret":
            return self.render_to_response(self.get_context_data(shown=endpoint))
        try:
            _ACTS[act](endpoint)
        except UrlNotAllowedError as error:
            messages.error(self.request, str(error))
        return redirect("webhooks-page")

    def _own(self) -> Any:
        return WebhookEndpoint.objects.filter(user_id=self.user_id)


_ACTS: Final[dict[str, Any]] = {
    "secret": None,
    "rotate": webhooks.rotate,
    "disable": lambda endpoint: webhooks.change_endpoint(endpoint, enabled=False),
    "enable": lambda endpoint: webhooks.change_endpoint(endpoint, enabled=True),
    "delete": webhooks.forget,
}
