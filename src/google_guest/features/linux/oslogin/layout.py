"""Where a distribution keeps what OS Login edits, and what metadata asks of OS Login.

Source: guest-agent ``google_guest_agent/oslogin.go``; google-guest-agent
``cmd/core_plugin/oslogin`` for the folders of SLES 16.
"""

from __future__ import annotations

from typing import Optional

from google_guest.os_release import OsRelease
from google_guest.records import record


@record
class Switches:
    """The four switches: three of metadata, one of the configuration."""

    two_factor: bool = False
    security_keys: bool = False
    certificates: bool = False
    """Certificates only, no keys."""
    cert_authentication: bool = True

    @property
    def offers_certificates(self) -> bool:
        """Whether sshd trusts the authorities; security keys must not be got round."""
        return (self.certificates or self.cert_authentication) and not self.security_keys

    @property
    def offers_keys(self) -> bool:
        """Whether sshd asks for keys."""
        return not self.certificates or self.security_keys


@record
class Layout:
    """Paths of one platform."""

    sshd_config: str = "/etc/ssh/sshd_config"
    nsswitch: str = "/etc/nsswitch.conf"
    pam_sshd: str = "/etc/pam.d/sshd"
    pam_su: str = "/etc/pam.d/su"
    group_conf: Optional[str] = "/etc/security/group.conf"
    """None: the platform has none."""
    helpers: str = "/usr/bin"
    copies: tuple[tuple[str, str], ...] = ()
    """Files of the distribution, and where they have to be copied before they can be edited."""
    pam_control: str = ""
    """The one control word that the platform's PAM has; empty: Linux-PAM."""


LINUX = Layout()
FREEBSD = Layout(group_conf=None, helpers="/usr/local/bin", pam_control="optional")
SLES_16 = Layout(
    copies=(
        ("/usr/etc/ssh/sshd_config", "/etc/ssh/sshd_config"),
        ("/usr/etc/nsswitch.conf", "/etc/nsswitch.conf"),
        ("/usr/lib/pam.d/sshd", "/etc/pam.d/sshd"),
        ("/usr/etc/security/group.conf", "/etc/security/group.conf"),
    )
)


def layout_for(release: OsRelease) -> Layout:
    """Return the layout of the distribution that ``release`` describes."""
    if release.id == "freebsd":
        return FREEBSD
    is_suse = "sles" in release.id or "opensuse" in release.id
    if is_suse and release.version_id.split(".")[0] == "16":
        return SLES_16
    return LINUX
