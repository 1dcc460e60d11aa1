"""Waiting for a guest whose login is refused: a password may be set late in the boot, or be wrong."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pytest_vmsnap.errors import GuestHung
from pytest_vmsnap.guest.bootstrap import connect
from pytest_vmsnap.guest.bootstrap.method import LoginRefused


class Login:
    """A way in that refuses the first `refusals` attempts."""

    name = "login"

    def __init__(self, refusals: int) -> None:
        self.refusals = refusals
        self.attempts = 0

    def is_ready(self) -> bool:
        return True

    def run_as_root(self, script: str, *, timeout: float) -> None:  # noqa: ARG002 - the protocol
        self.attempts += 1
        if self.attempts <= self.refusals:
            raise LoginRefused("the login was refused")

    def problem(self) -> str:
        return ""

    def close(self) -> None:
        pass


def attempt(login: Login, monkeypatch: pytest.MonkeyPatch, *others: Login, timeout: float = 3600.0) -> None:
    """Wait for a guest that answers once `login` has let somebody in."""
    monkeypatch.setattr(connect, "FIRST_TRY_SECONDS", 0.0)
    monkeypatch.setattr(connect, "REFUSED_PAUSE", 0.0)
    monkeypatch.setattr(connect, "BootWatch", lambda _: SimpleNamespace(look=lambda: None, suspects=False))
    channel: Any = SimpleNamespace(
        greet=lambda _: login.attempts > login.refusals, install_script=lambda: "true"
    )
    domain: Any = SimpleNamespace(console_text=lambda: "guest login:")
    connect.connect_or_install(channel, lambda: domain, [*others, login], at_boot=False, timeout=timeout)


def test_a_password_that_is_set_late_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    login = Login(refusals=2)
    attempt(login, monkeypatch)
    assert login.attempts == 3


def test_a_login_that_is_refused_again_and_again_fails_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    login = Login(refusals=1000)
    with pytest.raises(GuestHung, match=r"login: the login was refused \(3 attempts\)"):
        attempt(login, monkeypatch)
    assert login.attempts == 3


def test_a_login_that_is_refused_until_the_time_is_over_is_in_the_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connect, "REFUSALS", 10**9)
    with pytest.raises(GuestHung, match=r"did not answer within 1 s; .* login: the login was refused"):
        attempt(Login(refusals=10**9), monkeypatch, timeout=1.0)


def test_a_refusal_is_not_the_end_while_what_another_way_installed_may_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = Login(refusals=0)
    other.name = "other"
    with pytest.raises(GuestHung, match=r"other: the install script ran.*; login: .* refused .3 attempts"):
        attempt(Login(refusals=10**9), monkeypatch, other, timeout=1.0)
