"""OS Login: sshd, the name service and PAM set up for Google's identities, or set back.

Reads: ``enable-oslogin``, ``enable-oslogin-2fa``, ``enable-oslogin-sk`` and
``enable-oslogin-certificates`` of both metadata levels; ``[OSLogin]``, ``[Daemons]
oslogin_daemon``; the files below; which helpers and modules are installed.

Wants, while on: blocks of ours in sshd_config, pam.d/sshd and group.conf, our services in
nsswitch.conf, two directories and a sudoers drop-in, the certificate authorities in
``/etc/ssh/oslogin_trustedca.pub``, and the daemon's sockets open. While off: none of that, whoever
left it. With ``oslogin_daemon = false`` nothing is touched.

While it is off and nothing is left, a pass reads five small files and loads no further module.

Source: guest-agent ``google_guest_agent/oslogin.go``; google-guest-agent
``cmd/core_plugin/oslogin``; compute-image-packages ``google_oslogin_control``.
"""

from __future__ import annotations

from collections.abc import Hashable

from google_guest.features import Decision, Feature, Inputs, Plan, Stage
from google_guest.metadata.tree import Metadata
from google_guest.system import System

SWITCHES = (
    "enable-oslogin",
    "enable-oslogin-2fa",
    "enable-oslogin-sk",
    "enable-oslogin-certificates",
)
DRIFT_INTERVAL = 300.0
"""Seconds until lines are put back that another manager dropped."""

_EDITED = (
    "/etc/ssh/sshd_config",
    "/etc/nsswitch.conf",
    "/etc/pam.d/sshd",
    "/etc/pam.d/su",
    "/etc/security/group.conf",
)
_SIGNS = (b"Google OS Login control", b"Google Compute Engine OS Login", b"oslogin")
_REMAINS = (
    "/etc/ssh/oslogin_trustedca.pub",
    "/etc/sudoers.d/google-oslogin",
    "/etc/oslogin/identity.v1.cache",
    "/etc/oslogin_passwd.cache",
    "/etc/oslogin_passwd.cache.bin",
    "/etc/oslogin_group.cache",
    "/run/google-oslogin/nss.sock",
    "/run/systemd/userdb/com.google.OSLogin",
    "/run/google-guest-agent/oslogin-services.json",
)
_LIMIT = 4 << 20


def enabled(inputs: Inputs) -> Decision:
    """On if metadata switches it on and the configuration does not forbid it."""
    config = inputs.config
    if not config.daemons.oslogin_daemon:
        layer = config.origin("daemons", "oslogin_daemon")
        return Decision(False, "[Daemons] oslogin_daemon = false", layer)
    switch = None if inputs.metadata is None else inputs.metadata.switch(SWITCHES[0])
    if switch is None:
        return Decision(False, "off by default")
    return Decision(switch[0], f"enable-oslogin is {'true' if switch[0] else 'false'}", switch[1])


def inputs_of(metadata: Metadata) -> Hashable:
    """Return the four switches."""
    return tuple(metadata.switch(key) for key in SWITCHES)


def plan(inputs: Inputs) -> Plan:
    """Return what sets OS Login up."""
    from google_guest.features.linux.oslogin import reconcile

    return reconcile.plan_on(inputs)


def plan_off(inputs: Inputs) -> Plan:
    """Return what removes every trace; nothing while the configuration says not to touch it."""
    if not inputs.config.daemons.oslogin_daemon or not has_traces(inputs.system):
        return Plan()
    from google_guest.features.linux.oslogin import reconcile

    return reconcile.plan_off(inputs.system)


def has_traces(system: System) -> bool:
    """Return whether anything that OS Login leaves behind is there; reads little."""
    if any(system.files.exists(path) for path in _REMAINS):
        return True
    for path in _EDITED:
        try:
            data = system.files.read_bytes(path, limit=_LIMIT)
        except OSError:
            continue
        if data is not None and any(sign in data for sign in _SIGNS):
            return True
    return False


FEATURE = Feature(
    name="oslogin",
    summary="set sshd, the name service and PAM up for OS Login, or set them back",
    enabled=enabled,
    plan=plan,
    stage=Stage.BOOT,
    plan_off=plan_off,
    inputs_of=inputs_of,
    drift_interval=DRIFT_INTERVAL,
    retry_first=10.0,
    retry_last=600.0,
)
