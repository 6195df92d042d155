"""Every path of OS Login on this platform, one constant each.

The programs in Python import this module; those in C get the same texts from ``paths.h``, which
``tools/oslogin-header`` writes from it. Who builds for a platform with other folders changes this
file and nothing else. It imports nothing, for the helpers that sshd starts at every login.
"""

from __future__ import annotations

CACHE_FOLDER = "/etc/oslogin"
"""root, 0755. Below /etc: there in early boot, and readable in every security domain."""
CACHE_FILE = "/etc/oslogin/identity.v1.cache"
"""root, 0644: names, numbers, homes and groups, for the name service (identity_cache.py)."""

RUNTIME_FOLDER = "/run/google-oslogin"
NSS_SOCKET = "/run/google-oslogin/nss.sock"
"""0666: names and numbers, for everyone."""
AUTH_SOCKET = "/run/google-oslogin/auth.sock"
"""0600: keys, policy, second factors, refresh; for root."""
ANSWERED_MARK = "/run/google-oslogin/metadata-server-answered"
"""Exists when the metadata server has answered since boot."""
USERDB_SOCKET = "/run/systemd/userdb/com.google.OSLogin"
"""The user database of systemd; the last part of its name is the name of the service."""

USERS_FOLDER = "/var/google-users.d"
"""root, 0750: one file of sshd_config for each person who may log in."""
SUDOERS_FOLDER = "/var/google-sudoers.d"
"""root, 0750: one file of sudoers for each administrator."""
RUNTIME_SUDOERS_FOLDER = "/run/google-sudoers.d"
"""The same where the disk is full or read-only; until the next boot."""

PASSWD_FILE = "/etc/passwd"
"""Local accounts, which come before ours everywhere."""
NSCD_SOCKET = "/run/nscd/socket"
"""Exists while a name service cache daemon runs, which has to be told of changes."""

FORMER_CACHE_FILES = (
    "/etc/oslogin_passwd.cache",
    "/etc/oslogin_passwd.cache.bin",
    "/etc/oslogin_passwd.cache.bak",
    "/etc/oslogin_group.cache",
    "/etc/oslogin_group.cache.bak",
)
"""Caches of the implementation in C++, removed when ours exists."""

NSS_BYPASS = "GOOGLE_OSLOGIN_NSS_BYPASS"
"""No path: the variable that keeps the name service from asking (set for the service itself)."""
