"""A script on Linux: a file named after its key, run by the kernel or by a shell.

What is written into it is the business of ``script_file``, how it starts that of ``launch``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from google_guest.records import record

if TYPE_CHECKING:
    from google_guest.config import MetadataScriptsSection
    from google_guest.scripts.lookup import Script
    from google_guest.scripts.output import Console
    from google_guest.scripts.platforms import Scratch
    from google_guest.system import System
    from google_guest.system.children import Ending
    from google_guest.system.scratch import Base, ScratchDirectory

STATE_BASE = "/var/lib/google-guest-agent/run"


@record
class Linux:
    """See ``platforms.Platform``."""

    system: System
    settings: MetadataScriptsSection
    console: Console
    environment: Mapping[str, str]
    """With which the runner was started; scripts get a copy."""

    def make_scratch(self) -> ScratchDirectory:
        """Make a private directory where programs may run."""
        from google_guest.system.scratch import make_scratch

        return make_scratch(self.system.files, self._bases())

    def remove_leftovers(self) -> None:
        """Remove private directories whose makers are gone."""
        from google_guest.system.scratch import remove_leftovers

        remove_leftovers(self.system.files, self._bases())

    def write_inline(self, script: Script, scratch: Scratch) -> str:
        """Write the text of an inline script."""
        from google_guest.scripts.script_file import prepare_inline

        prepared = prepare_inline(script.value)
        if prepared.converted:
            self.console.warning(
                f"{script.key} has Windows line ends (CRLF) in its #! line; they were converted."
            )
        return scratch.write(script.key, prepared.data)

    def accept_download(self, script: Script, scratch: Scratch, path: str) -> str:
        """Return ``path``: whatever it is, the kernel or the shell will tell."""
        return path

    def execute(self, key: str, path: str) -> Ending:
        """Run the file to its end."""
        from google_guest.scripts.launch import script_environment, start_script
        from google_guest.scripts.output import ScriptOutput
        from google_guest.system.children import run_to_end

        child = start_script(
            path,
            default_shell=self.settings.default_shell,
            environment=script_environment(self.system, self.environment),
        )
        return run_to_end(child, ScriptOutput(key, self.console))

    def _bases(self) -> tuple[Base, ...]:
        """Return where private directories may be, best first."""
        from google_guest.system.scratch import Base

        if self.settings.run_dir:
            return (Base(self.settings.run_dir, create=True),)
        # Not /run, which Debian mounts noexec.
        return (
            Base(self.environment.get("TMPDIR") or "/tmp"),
            Base(STATE_BASE, create=True),
            Base("/var/tmp"),
            Base("/root"),
        )
