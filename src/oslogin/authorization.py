"""Who may log in, and who may become root: the decision, and the files that follow from it.

One decision costs up to three requests and is never remembered: a withdrawn permission counts at
the next login. An explicit no removes the user's files; a metadata server that does not answer
removes nothing, so that sudo goes on working during an outage, but nobody new gets in.

Every decision is one line in the log, with one word for the class of a denial and no secret.

Source: guest-oslogin ``src/oslogin_utils.cc`` (``AuthorizeUser``).
"""

from __future__ import annotations

import enum
import logging
import time
from typing import Optional, Protocol, Union

from google_guest.errors import GuestError
from google_guest.records import record
from oslogin.grants import GrantError, Grants
from oslogin.identities import Profile, is_login_name

SECONDS = 18.0
"""For all requests of one decision: the clients wait for 20."""

_log = logging.getLogger(__name__)


class Policies(Protocol):
    """What is asked of the metadata server: ``oslogin.directory.Directory``."""

    def user_by_name(
        self, name: str, *, security_keys: bool = False, deadline: float
    ) -> Optional[Profile]:
        """Return the profile, None if there is no such user."""

    def is_authorized(
        self, email: str, policy: str, *, fingerprint: str = "", deadline: float
    ) -> bool:
        """Return whether ``policy`` (login, adminLogin) holds."""


class Verdict(enum.Enum):
    """The outcome of a decision."""

    ALLOWED = "allowed"
    DENIED = "denied"
    UNKNOWN_USER = "unknown user"
    """Not an OS Login user: others may know it."""
    UNAVAILABLE = "unavailable"
    """The metadata server did not say."""


class Reason(enum.Enum):
    """The class of a denial, as it stands in the log."""

    NONE = ""
    UNKNOWN_USER = "unknown-user"
    POLICY = "policy"
    NO_KEY = "no-key"
    NO_SECOND_FACTOR = "no-2fa-method"
    METADATA = "metadata"
    DISK = "disk"
    BAD_NAME = "bad-name"


@record
class Decision:
    """What was decided about one user."""

    verdict: Verdict
    reason: Reason = Reason.NONE
    detail: str = ""
    """For the log: what happened, in a few words."""
    profile: Optional[Profile] = None
    """The user, if it was found."""
    is_admin: bool = False
    """The metadata server said just now that the user may become root."""

    @property
    def is_allowed(self) -> bool:
        """Whether the user may log in."""
        return self.verdict is Verdict.ALLOWED


class Authorizer:
    """Decides with the help of the metadata server and keeps the files in step."""

    def __init__(self, directory: Policies, grants: Grants) -> None:
        self._directory = directory
        self._grants = grants

    def authorize(
        self,
        name: str,
        *,
        admin_required: bool = False,
        security_keys: bool = False,
        fingerprint: str = "",
    ) -> Decision:
        """Decide whether the user may log in (and become root, if that is required).

        ``fingerprint`` is that of a certificate, which the policy may know. Never raises for what
        the metadata server or the disk does.
        """
        deadline = time.monotonic() + SECONDS
        found = self._find(name, security_keys, deadline)
        if found.profile is None or found.reason is not Reason.NONE:
            return _logged(name, found)
        decision = self._login(found.profile, fingerprint, deadline)
        if decision.is_allowed:
            decision = self._admin(found.profile, admin_required, fingerprint, deadline)
        return _logged(name, decision)

    def authorize_cloud_run(self, name: str, *, fingerprint: str = "") -> Decision:
        """Decide whether the user may become root of a Cloud Run instance; no file is written."""
        deadline = time.monotonic() + SECONDS
        found = self._find(name, False, deadline)
        if found.profile is None or found.reason is not Reason.NONE:
            return _logged(name, found)
        profile = found.profile
        answer = self._ask(profile, "adminLogin", fingerprint, deadline)
        if isinstance(answer, GuestError):
            decision = Decision(Verdict.UNAVAILABLE, Reason.METADATA, str(answer), profile)
        elif answer:
            decision = Decision(Verdict.ALLOWED, profile=profile, is_admin=True)
        else:
            decision = Decision(Verdict.DENIED, Reason.POLICY, "adminLogin", profile)
        return _logged(name, decision)

    def was_admitted(self, name: str) -> bool:
        """Return whether the user has been let in before (it has a users file)."""
        return is_login_name(name) and self._grants.is_admitted(name)

    def find(self, name: str) -> Decision:
        """Return the profile without asking for a policy: what two-factor logins begin with."""
        return self._find(name, False, time.monotonic() + SECONDS)

    def _find(self, name: str, security_keys: bool, deadline: float) -> Decision:
        if not is_login_name(name):
            return Decision(Verdict.UNKNOWN_USER, Reason.BAD_NAME)
        try:
            profile = self._directory.user_by_name(
                name, security_keys=security_keys, deadline=deadline
            )
        except GuestError as error:
            return Decision(Verdict.UNAVAILABLE, Reason.METADATA, str(error))
        if profile is None:
            # The files of departed users go with the next refresh: an answer that is not to be
            # believed also ends here, and must cost nobody his sudo.
            return Decision(Verdict.UNKNOWN_USER, Reason.UNKNOWN_USER)
        if profile.user.name != name:
            return Decision(Verdict.DENIED, Reason.METADATA, "the answer is about somebody else")
        if not profile.email:
            detail = "the profile has no email address"
            return Decision(Verdict.DENIED, Reason.METADATA, detail, profile)
        return Decision(Verdict.ALLOWED, profile=profile)

    def _login(self, profile: Profile, fingerprint: str, deadline: float) -> Decision:
        name = profile.user.name
        answer = self._ask(profile, "login", fingerprint, deadline)
        if isinstance(answer, GuestError):
            return Decision(Verdict.UNAVAILABLE, Reason.METADATA, str(answer), profile)
        if not answer:
            self._revoke(name)
            return Decision(Verdict.DENIED, Reason.POLICY, "login", profile)
        try:
            self._grants.admit(name)
        except GrantError as error:
            return Decision(Verdict.DENIED, Reason.DISK, str(error), profile)
        return Decision(Verdict.ALLOWED, profile=profile)

    def _admin(
        self, profile: Profile, admin_required: bool, fingerprint: str, deadline: float
    ) -> Decision:
        user = profile.user
        allowed = Decision(Verdict.ALLOWED, profile=profile)
        answer = self._ask(profile, "adminLogin", fingerprint, deadline)
        if isinstance(answer, GuestError):
            _log.warning("sudo of %s stays as it is: %s", user.name, answer)
            if admin_required:
                return Decision(Verdict.UNAVAILABLE, Reason.METADATA, str(answer), profile)
            return allowed
        if not answer:
            try:
                self._grants.revoke_sudo(user.name)
            except GrantError as error:
                _log.error("%s", error)
            if admin_required:
                return Decision(Verdict.DENIED, Reason.POLICY, "adminLogin", profile)
            return allowed
        try:
            self._grants.grant_sudo(user.name, user.uid)
        except (GrantError, ValueError) as error:
            _log.error("%s (class %s)", error, Reason.DISK.value)
        return Decision(Verdict.ALLOWED, profile=profile, is_admin=True)

    def _ask(
        self, profile: Profile, policy: str, fingerprint: str, deadline: float
    ) -> Union[bool, GuestError]:
        try:
            return (
                self._directory.is_authorized(
                    profile.email, policy, fingerprint=fingerprint, deadline=deadline
                )
                is True
            )
        except GuestError as error:
            return error

    def _revoke(self, name: str) -> None:
        try:
            self._grants.revoke(name)
        except GrantError as error:
            _log.error("%s", error)


def log_denial(name: str, reason: Reason, detail: str = "") -> None:
    """Write the one line of a denied login."""
    _log.warning(
        "login of %.40r denied: %s%s", name, reason.value, f" ({detail})" if detail else ""
    )


def _logged(name: str, decision: Decision) -> Decision:
    if decision.is_allowed:
        _log.info("login of %s allowed%s", name, ", with sudo" if decision.is_admin else "")
    else:
        log_denial(name, decision.reason, decision.detail)
    return decision
