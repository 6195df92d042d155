"""Where an instance keeps the guest environment's files, on each platform.

Modules that both platforms share name their files through ``System.places``; what exists on Linux
only names its own. All paths are guest paths (see ``system.files``).

Source: guest-agent ``google_guest_agent/cfg/cfg.go`` for the configuration files,
google-guest-agent ``internal/cfg`` and the Windows packages' install scripts for
``google-guest-agent`` below ``C:\\ProgramData``.
"""

from __future__ import annotations

from google_guest.records import record


@record
class Places:
    """Folders and files of one platform."""

    config: str
    """The administrator's configuration file; its layers stand beside it."""
    state: str
    """Folder of what outlives a boot."""
    run: str
    """Folder of what belongs to one boot."""
    host_keys: str
    """Folder of sshd's host keys, unless the configuration names another one."""
    separator: str = "/"

    def in_state(self, name: str) -> str:
        """Return the path of the file ``name`` that outlives a boot."""
        return f"{self.state}{self.separator}{name}"

    def in_run(self, name: str) -> str:
        """Return the path of the file ``name`` that belongs to one boot."""
        return f"{self.run}{self.separator}{name}"


LINUX = Places(
    config="/etc/default/instance_configs.cfg",
    state="/var/lib/google-guest-agent",
    run="/run/google-guest-agent",
    host_keys="/etc/ssh",
)

WINDOWS = Places(
    config=r"C:\Program Files\Google\Compute Engine\instance_configs.cfg",
    state=r"C:\ProgramData\Google\Compute Engine\google-guest-agent",
    run=r"C:\ProgramData\Google\Compute Engine\google-guest-agent\run",
    host_keys=r"C:\ProgramData\ssh",
    separator="\\",
)
