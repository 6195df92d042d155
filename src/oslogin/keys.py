"""What sshd is given for a login: the lines of the key helpers and of the principals helper.

A line is handed out only after the login was allowed by policy. Expiry is judged to the
microsecond at the moment of the request; nothing is remembered. sshd has verified a certificate
and its authority before it asks for principals; that the certificate is this user's is checked
here once more, before its fingerprint can have any effect.

Source: guest-oslogin ``src/authorized_keys/``, ``src/authorized_keys_sk/``,
``src/authorized_principals/``.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Optional, Protocol

from google_guest.records import record
from oslogin.authorization import Authorizer, Reason, Verdict, log_denial
from oslogin.identities import Profile

SERVICE_ACCOUNT = "sa_"
"""Such users have no security key and log in with ordinary keys."""
CLOUD_RUN_USER = "root"

_log = logging.getLogger(__name__)


class Certificate(Protocol):
    """What is needed of ``oslogin.certificates``."""

    @property
    def fingerprint(self) -> str:
        """Return the account's mark in the certificate, empty if it has none."""

    @property
    def principals(self) -> Sequence[str]:
        """Return for whom the certificate is."""


@record
class Lines:
    """The answer to a helper."""

    lines: tuple[str, ...] = ()
    verdict: Verdict = Verdict.ALLOWED
    is_certificate: bool = True
    """False: what the helper was given is no certificate of an OS Login user."""


def key_lines(profile: Profile, *, security_keys: bool, now_usec: int) -> tuple[str, ...]:
    """Return the authorized_keys lines of a profile at ``now_usec`` (microseconds since 1970)."""
    if security_keys and not profile.user.name.startswith(SERVICE_ACCOUNT):
        return profile.security_keys
    return tuple(key.line for key in profile.keys if not key.is_expired(now_usec))


class Keys:
    """Answers the helpers of sshd."""

    def __init__(
        self,
        authorizer: Authorizer,
        parse: Callable[[str], Optional[Certificate]],
        *,
        now_usec: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        """``parse`` returns a certificate or None; ``now_usec`` is the wall clock."""
        self._authorizer = authorizer
        self._parse = parse
        self._now_usec = now_usec

    def authorized_keys(self, user: str, *, security_keys: bool = False) -> Lines:
        """Return the user's lines; none if it may not log in."""
        decision = self._authorizer.authorize(user, security_keys=security_keys)
        if not decision.is_allowed or decision.profile is None:
            return Lines(verdict=decision.verdict)
        lines = key_lines(decision.profile, security_keys=security_keys, now_usec=self._now_usec())
        if not lines:
            log_denial(user, Reason.NO_KEY)
        return Lines(lines)

    def principals(self, user: str, text: str, *, cloud_run: bool = False) -> Lines:
        """Return the name under which the certificate may log in; ``text`` is sshd's ``%k``."""
        certificate = self._parse(text)
        if certificate is None or not certificate.fingerprint:
            log_denial(user, Reason.NO_KEY, "the certificate is not of an OS Login user")
            return Lines(verdict=Verdict.DENIED, is_certificate=False)
        principals = tuple(certificate.principals)
        if cloud_run:
            return self._cloud_run(user, principals, certificate.fingerprint)
        if user not in principals:
            log_denial(user, Reason.NO_KEY, "the certificate is somebody else's")
            return Lines(verdict=Verdict.DENIED)
        decision = self._authorizer.authorize(user, fingerprint=certificate.fingerprint)
        return Lines((user,) if decision.is_allowed else (), decision.verdict)

    def _cloud_run(self, user: str, principals: tuple[str, ...], fingerprint: str) -> Lines:
        if user != CLOUD_RUN_USER or not principals:
            log_denial(user, Reason.POLICY, "Cloud Run knows one user, root")
            return Lines(verdict=Verdict.DENIED)
        name = principals[0]
        decision = self._authorizer.authorize_cloud_run(name, fingerprint=fingerprint)
        return Lines((name,) if decision.is_allowed else (), decision.verdict)
