"""Users and SSH keys from metadata, while OS Login is off.

Reads: ``ssh-keys`` and ``sshKeys`` of both metadata levels, ``block-project-ssh-keys`` of the
instance, ``enable-oslogin``, ``instance/id``; ``[Accounts]``, ``[Daemons] accounts_daemon`` and
``oslogin_daemon``; /etc/passwd, /etc/group, the name service for users that these do not have, the
users' ``~/.ssh/authorized_keys``, and what is remembered about users (``google_guest.
managed_users``).

Wants: an account in the configured groups and in ``google-sudoers`` for every user with a valid
key; in its authorized_keys, behind the user's own lines and marked as ours, exactly the keys of
metadata; none of that for users who were managed before and have no key any more. With OS Login on
nobody is wanted, so everybody who was managed is cleaned.

Changes: accounts and groups by the platform's tools, ``/etc/sudoers.d/google_sudoers`` if there is
none, authorized_keys files, the record of managed users, and sshd is started if it does not run.

A user's lines, an existing account's fields and groups, and users of another instance (in an image
that was made of it) are never touched; accounts below uid 1000 get keys and nothing else.

Source: guest-agent ``google_guest_agent/non_windows_accounts.go``, google-guest-agent
``cmd/core_plugin/metadatasshkey``, compute-image-packages ``google_compute_engine/accounts``.
"""

from __future__ import annotations

from google_guest.features import Feature, Frequency, Stage
from google_guest.features.key_explanations import KeyExplanation
from google_guest.features.linux.accounts.reconcile import enabled, inputs_of, plan, plan_off
from google_guest.features.linux.accounts.wanted import (
    explain_keys,
    is_oslogin_on,
    served_keys,
    wanted_users,
)

__all__ = [
    "FEATURE",
    "KeyExplanation",
    "enabled",
    "explain_keys",
    "inputs_of",
    "is_oslogin_on",
    "plan",
    "plan_off",
    "served_keys",
    "wanted_users",
]

FEATURE = Feature(
    name="accounts",
    summary="create users and write their SSH keys from metadata",
    enabled=enabled,
    plan=plan,
    stage=Stage.BOOT,
    frequency=Frequency.ALWAYS,
    plan_off=plan_off,
    inputs_of=inputs_of,
    drift_interval=300.0,
    retry_first=60.0,
    retry_last=3600.0,
)
