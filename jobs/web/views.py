"""Signing in, and what every page has."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.mixins import LoginRequiredMixin
from django.contrib.auth.views import LoginView
from django.views.generic import TemplateView


class SignIn(LoginView):
    """For all accounts that have a password; who is signed in already is led on."""

    template_name = "web/sign_in.html"
    redirect_authenticated_user = True


class Page(LoginRequiredMixin, TemplateView):
    """A page of the person who is signed in, and of nobody else."""

    here = ""

    @property
    def user_id(self) -> str:
        """Whose things it shows."""
        return str(self.request.user.get_username())

    def get_context_data(self, **context: Any) -> dict[str, Any]:
        return super().get_context_data(here=self.here, user_id=self.user_id, **context)
