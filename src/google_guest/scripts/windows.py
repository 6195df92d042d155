r"""A script on Windows: a file with an extension, run by what the extension stands for.

===============  ===============================================================================
Extension        Runs as
===============  ===============================================================================
``.ps1``         Windows PowerShell, without a profile and without asking anybody anything
``.cmd .bat``    ``cmd.exe``, without AutoRun commands
``.exe``         itself
===============  ===============================================================================

Interpreters have absolute paths. The file is in a directory of its own below ``run_dir`` of the
configuration, or else below the folder of temporary files (``%TEMP%``, for SYSTEM
``C:\Windows\Temp``) or the agent's.

Source: guest-agent ``google_metadata_script_runner/main.go``; ``cmd /?`` for how it takes quotes.
"""

from __future__ import annotations

import ntpath
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Union

from google_guest.errors import GuestError
from google_guest.records import record
from google_guest.scripts.output import Console, ScriptOutput
from google_guest.scripts.windows_console import decode
from google_guest.scripts.windows_files import (
    BATCH,
    POWERSHELL,
    PROGRAM,
    UnknownKind,
    extension_of_content,
    extension_of_key,
    extension_of_url,
    prepare_inline,
)
from google_guest.scripts.windows_relay import relay_argv
from google_guest.system.children import Ending
from google_guest.system.windows.environment import windows_folder

if TYPE_CHECKING:
    from google_guest.config import MetadataScriptsSection
    from google_guest.scripts.lookup import Script
    from google_guest.scripts.platforms import Scratch
    from google_guest.system import System
    from google_guest.system.windows.scratch import ScratchDirectory

_POWERSHELL_ARGUMENTS = (
    *("-NoProfile", "-NoLogo", "-NonInteractive"),
    *("-ExecutionPolicy", "Unrestricted", "-File"),
)
_HEAD = 2


@record
class Interpreters:
    """Where the programs are that run scripts; absolute paths."""

    powershell: str
    cmd: str


@record
class Command:
    """A program and its command line, or the arguments to make one of."""

    program: str
    line: Union[str, tuple[str, ...]]


Execute = Callable[[Command, Mapping[str, str], str, ScriptOutput], Ending]
"""Runs a command with an environment, for a key, its output going to a sink; raises OSError."""


def interpreters() -> Interpreters:
    """Return where Windows has its interpreters."""
    folder = rf"{windows_folder()}\System32"
    return Interpreters(
        powershell=rf"{folder}\WindowsPowerShell\v1.0\powershell.exe", cmd=rf"{folder}\cmd.exe"
    )


def command_of(path: str, interpreters: Interpreters) -> Command:
    """Return what runs the file at ``path``.

    Raises:
        UnknownKind: its extension is none of the four.
    """
    extension = ntpath.splitext(path)[1]
    if extension == POWERSHELL:
        program = interpreters.powershell
        return Command(program, (program, *_POWERSHELL_ARGUMENTS, path))
    if extension in BATCH:
        # cmd.exe takes away the outer pair of quotes and leaves the rest as it is, whatever
        # blanks, parentheses and ampersands the path has. It knows no way to escape a quote, and
        # no path has one.
        program = interpreters.cmd
        return Command(program, f'"{program}" /d /s /c ""{path}""')
    if extension == PROGRAM:
        return Command(path, (path,))
    raise UnknownKind


def run_on_windows(
    command: Command, environment: Mapping[str, str], key: str, output: ScriptOutput
) -> Ending:
    """Run a command to its end; what it leaves in the background gets a relay."""
    if sys.platform == "win32":
        from google_guest.system.windows.processes import run_to_end, spawn, start_detached

        def relay(pipe: int, continued: bool) -> None:
            start_detached(relay_argv(key, continued=continued), standard_input=pipe)

        child = spawn(command.line, program=command.program, environment=environment)
        return run_to_end(child, output, relay)
    raise GuestError("this machine does not run Windows")


@record
class Windows:
    """See ``platforms.Platform``."""

    system: System
    settings: MetadataScriptsSection
    console: Console
    environment: Mapping[str, str]
    """With which the runner was started; scripts get it."""
    interpreters: Interpreters
    run: Execute = run_on_windows

    def make_scratch(self) -> ScratchDirectory:
        """Make a private directory."""
        from google_guest.system.windows.scratch import make_scratch

        return make_scratch(self.system.files, self._bases())

    def remove_leftovers(self) -> None:
        """Remove private directories whose makers are gone."""
        from google_guest.system.windows.scratch import remove_leftovers

        remove_leftovers(self.system.files, self._bases())

    def write_inline(self, script: Script, scratch: Scratch) -> str:
        """Write the text of an inline script."""
        extension = extension_of_key(script.key)
        return scratch.write(
            f"{script.key}{extension or ''}", prepare_inline(script.value, extension)
        )

    def accept_download(self, script: Script, scratch: Scratch, path: str) -> str:
        """Give what was fetched the extension of its URL's path, or the one of a program."""
        extension = extension_of_url(script.value)
        if extension is None:
            with open(path, "rb") as file:
                extension = extension_of_content(file.read(_HEAD))
        if extension is None:
            raise UnknownKind
        return scratch.rename(script.key, f"{script.key}{extension}")

    def execute(self, key: str, path: str) -> Ending:
        """Run the file to its end."""
        command = command_of(path, self.interpreters)
        output = ScriptOutput(key, self.console, decode=decode)
        try:
            return self.run(command, self.environment, key, output)
        except OSError as error:
            raise GuestError(
                f"{ntpath.basename(command.program)} cannot be started: {error.strerror or error}"
            ) from error

    def _bases(self) -> tuple[str, ...]:
        """Return where private directories may be, best first."""
        if self.settings.run_dir:
            return (self.settings.run_dir,)
        return (
            self.environment.get("TEMP") or rf"{windows_folder()}\Temp",
            self.system.places.in_run("scratch"),
        )
