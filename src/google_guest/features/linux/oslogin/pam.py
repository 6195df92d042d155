"""pam.d/sshd and pam.d/su: our lines at the top and the bottom, old ones out.

``pam_group.so`` stands first: a second factor that succeeds ends the stack.

Source: guest-agent ``google_guest_agent/oslogin.go``; pam.conf(5); guest-oslogin issue 123 for the
line in su.
"""

from __future__ import annotations

from google_guest.features.linux.oslogin.blocks import block, ended, without_blocks
from google_guest.features.linux.oslogin.layout import Layout, Switches

_SU_LINE = "account [success=bad ignore=ignore] pam_oslogin_login.so"
_MODULES = ("pam_oslogin_login.so", "pam_oslogin_admin.so", "pam_group.so", "pam_mkhomedir.so")


def enable_sshd(text: str, switches: Switches, layout: Layout) -> str:
    """Return the text of pam.d/sshd with our blocks."""
    control = layout.pam_control
    top = [f"auth {control or '[default=ignore]'} pam_group.so"]
    if switches.two_factor:
        step = control or "[success=done perm_denied=die default=ignore]"
        top.append(f"auth {step} pam_oslogin_login.so")
    bottom = [f"session {control or '[success=ok default=ignore]'} pam_mkhomedir.so"]
    return block(top) + ended(disable_sshd(text)) + block(bottom)


def disable_sshd(text: str) -> str:
    """Return the text of pam.d/sshd without our blocks and without lines of older programs."""
    return without_blocks(text, _is_ours)


def without_deprecated_su(text: str) -> str:
    """Return the text of pam.d/su without the line that kept OS Login's users out."""
    lines = without_blocks(text, _is_ours).split("\n")
    return "\n".join(line for line in lines if " ".join(line.split()) != _SU_LINE)


def _is_ours(line: str) -> bool:
    words = line.split()
    return len(words) >= 3 and words[-1] in _MODULES and words[0] in ("auth", "session", "account")
