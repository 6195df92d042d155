"""Changes to the accounts of a Windows machine: new passwords on request, users for ssh.

A request for a password is answered on ``COM4`` whatever becomes of it, and then noted in the
registry: its sender sees an error and asks anew, with a new key. Only a request whose answer could
not be written stays open, and is processed again. Passwords exist in memory alone, between their
making and the call that sets them.

Source: guest-agent ``google_guest_agent/windows_accounts.go``, ``accounts_windows.go``.
"""

from __future__ import annotations

import logging
from typing import Optional

from google_guest.changes import Change
from google_guest.errors import GuestError
from google_guest.records import field, record
from google_guest.system import System
from google_guest.system.windows import (
    ADMINISTRATORS,
    COMPUTE_ENGINE_KEY,
    UserAccounts,
    UserExists,
    Windows,
)
from google_guest.windows_keys import ATTRIBUTE, WindowsKey, encode_processed, parse_processed
from google_guest.windows_passwords import (
    RECOMMENDED_KEY,
    effective_length,
    encrypt,
    generate_password,
    public_numbers,
    reply,
)

log = logging.getLogger(__name__)

PUBLIC_KEYS = "PublicKeys"
REPLY_PORT = "COM4"
_SSH_PASSWORD_LENGTH = 20


@record
class ResetPassword(Change):
    """Give the user of a request a new password and answer with it."""

    key: WindowsKey = field(repr=False)
    exists: Optional[bool] = None
    """Whether the plan saw the account; None if it could not tell."""

    @property
    def subject(self) -> str:
        """The request: a failed one is no reason to leave out another one of its user."""
        return f"windows-keys line {self.key.line}"

    def describe(self) -> str:
        """Return the user's name."""
        if self.exists is False:
            return f"create user {self.key.user_name}, asked for with {ATTRIBUTE}"
        return f"reset the password of user {self.key.user_name}"

    def diff(self) -> tuple[str, ...]:
        """Return what the request says beside its key."""
        wish = self.key.add_to_administrators
        joins = wish if self.exists is not False else wish is not False
        lines = [f"+password of {effective_length(self.key.password_length)} characters"]
        if joins:
            lines.append("+member of the administrators")
        return (*lines, f"+answer on {REPLY_PORT}, asked for until {self.key.expire_on}")

    def apply(self, system: System) -> None:
        """Process the request.

        Raises:
            GuestError: there is no new password, or nobody was told of it.
        """
        key, windows = self.key, system.windows
        problem: Optional[Exception] = None
        try:
            encrypted, problem = _reset(windows.accounts, key)
            answer = reply(key, encrypted=encrypted)
        except (GuestError, OSError) as error:
            problem = error
            answer = reply(key, error=str(error))
        try:
            windows.write_serial(REPLY_PORT, answer)
        except OSError as error:
            raise GuestError(
                f"the answer for user {key.user_name} cannot be written to {REPLY_PORT}: {error};"
                " the request will be processed again"
            ) from error
        _note_processed(windows, key)
        if problem is not None:
            raise GuestError(f"user {key.user_name}: {problem}") from problem


def _reset(accounts: UserAccounts, key: WindowsKey) -> tuple[str, Optional[GuestError]]:
    """Set the password; return it encrypted, and what kept the user out of the administrators.

    From the moment at which the account has the password, its owner must learn it: a membership
    that fails is told in the log, and not instead of the password.

    Raises:
        GuestError: the account is as it was.
    """
    bits = public_numbers(key)[0].bit_length()
    if bits < RECOMMENDED_KEY:
        log.warning("user %s: the key of the request has %d bits only", key.user_name, bits)
    password = generate_password(effective_length(key.password_length))
    encrypted = encrypt(password, key)
    created = not accounts.exists(key.user_name)
    if created:
        try:
            accounts.create(key.user_name, password)
        except UserExists:
            created = False
    if not created:
        accounts.set_password(key.user_name, password)
    del password
    joins = key.add_to_administrators
    if created and joins is None:
        joins = True
    if joins:
        try:
            accounts.add_to_group(key.user_name, ADMINISTRATORS)
        except GuestError as error:
            return encrypted, GuestError(f"is no member of the administrators: {error}")
    return encrypted, None


def _note_processed(windows: Windows, key: WindowsKey) -> None:
    known = windows.registry.strings(COMPUTE_ENGINE_KEY, PUBLIC_KEYS)
    if key.identity not in parse_processed(known).identities:
        listed = (*known, encode_processed(key))
        windows.registry.set_strings(COMPUTE_ENGINE_KEY, PUBLIC_KEYS, listed)


@record
class TidyProcessedKeys(Change):
    """Have the registry list the processed requests that metadata still has, and no other."""

    listed: tuple[WindowsKey, ...] = field(repr=False)

    @property
    def subject(self) -> str:
        """The list."""
        return "processed windows-keys"

    def describe(self) -> str:
        """Return what the list is freed of."""
        return "forget processed windows-keys that metadata no longer has"

    def apply(self, system: System) -> None:
        """Rewrite the list if that changes it."""
        registry = system.windows.registry
        known = registry.strings(COMPUTE_ENGINE_KEY, PUBLIC_KEYS)
        wanted = tidied(known, self.listed)
        if wanted != known:
            registry.set_strings(COMPUTE_ENGINE_KEY, PUBLIC_KEYS, wanted)


def tidied(known: tuple[str, ...], listed: tuple[WindowsKey, ...]) -> tuple[str, ...]:
    """Return the processed ones of ``listed``, as ``PublicKeys`` should list them."""
    processed = parse_processed(known).identities
    return tuple(encode_processed(key) for key in listed if key.identity in processed)


@record
class CreateSshUser(Change):
    """Make an administrator with a password that nobody knows, for logins with keys."""

    user: str

    @property
    def subject(self) -> str:
        """The user."""
        return f"user {self.user}"

    def describe(self) -> str:
        """Return the user's name."""
        return f"create user {self.user}, an administrator"

    def apply(self, system: System) -> None:
        """Create the user; one who is there meanwhile is left as it is.

        Raises:
            WindowsError: Windows refused.
        """
        accounts = system.windows.accounts
        try:
            accounts.create(self.user, generate_password(_SSH_PASSWORD_LENGTH))
        except UserExists:
            return
        accounts.add_to_group(self.user, ADMINISTRATORS)
