"""The commands of packages: install, uninstall and verify.

What runs a file is decided by its extension. Its output goes to the console and to ``FILE.log``
beside it. Success is exit code 0, a code that the package lists, and for installers of Windows
1641 and 3010, which mean that the system must be restarted.

PowerShell scripts run as ``& 'FILE' ARGS`` followed by an ``exit`` with the script's own code. Go's
googet leaves the ``exit`` out, which turns every other code than 0 into 1; packages written for it
that list 1 still work. A script that ends without ``exit`` has succeeded, whatever the last program
in it returned. The arguments are PowerShell source.

Facts: googet: goolib/goolib.go (interpreters, success), googet: system/system_windows.go
(installers, uninstalling), Microsoft: "msiexec", "Windows Installer error messages".
"""

from __future__ import annotations

import enum
import logging
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Optional, TextIO

from googet.database import InstalledPackage
from googet.host import Host, PathError
from googet.host.quoting import powershell_text, split_arguments
from googet.pkgspec import Command, PackageSpec
from google_guest.errors import GuestError
from google_guest.records import record

_log = logging.getLogger(__name__)

RESTART_CODES = (1641, 3010)
"""ERROR_SUCCESS_REBOOT_INITIATED, ERROR_SUCCESS_REBOOT_REQUIRED."""
_UNKNOWN_PRODUCT = 1605
_INSTALLERS = (".msi", ".msp", ".msu", ".exe", ".msix", ".msixbundle")
_POWERSHELL_OPTIONS = ("-ExecutionPolicy", "Bypass", "-NonInteractive", "-NoProfile", "-Command")


class PackageCommandError(GuestError):
    """A package's command cannot be run on this system."""


class Action(enum.Enum):
    """What a command is for."""

    INSTALL = "install"
    UNINSTALL = "uninstall"
    VERIFY = "verify"


@record
class Outcome:
    """How a command ended; ``ran`` is false where there was nothing to run."""

    success: bool = True
    exit_code: int = 0
    reboot_required: bool = False
    log: Optional[Path] = None
    ran: bool = False
    command: str = ""
    """The command's file name, or the program that other software registered."""

    @property
    def message(self) -> str:
        """Return what to tell about a failure."""
        return f"{self.command} failed with exit code {self.exit_code}"


def needs_archive(spec: PackageSpec) -> bool:
    """Return whether removing the package runs a file of it."""
    return bool(spec.uninstall.path)


def run_install(
    spec: PackageSpec,
    folder: Path,
    host: Host,
    *,
    console: Optional[TextIO] = None,
    timeout: Optional[float] = None,
) -> Outcome:
    """Run the install command of a package that is extracted in ``folder``.

    ``timeout`` is in seconds; after it the command counts as failed with exit code -1.

    Raises:
        GuestError: it cannot be started, or its extension is not known.
    """
    return _run_file(spec.install, folder, host, Action.INSTALL, console, timeout)


def run_verify(
    spec: PackageSpec,
    folder: Path,
    host: Host,
    *,
    console: Optional[TextIO] = None,
    timeout: Optional[float] = None,
) -> Outcome:
    """Run the verify command; see :func:`run_install`."""
    return _run_file(spec.verify, folder, host, Action.VERIFY, console, timeout)


def run_uninstall(
    package: InstalledPackage,
    folder: Optional[Path],
    host: Host,
    *,
    logs: Optional[Path] = None,
    console: Optional[TextIO] = None,
    timeout: Optional[float] = None,
) -> Outcome:
    """Run what removes the package's software.

    That is the uninstall command, for which the package is extracted in ``folder``. Where there is
    none, on Windows, it is what the application of the package registered; its log then goes to
    the folder ``logs``, that of temporary files without one.

    Raises:
        GuestError: see :func:`run_install`.
    """
    spec = package.spec
    if spec.uninstall.path:
        if folder is None:
            raise PackageCommandError(
                f"{spec.full_name} is not extracted; its uninstall command cannot run"
            )
        return _run_file(spec.uninstall, folder, host, Action.UNINSTALL, console, timeout)
    logs = logs or Path(tempfile.gettempdir())
    argv = _registered_uninstall(package, host, logs) if host.name == "windows" else []
    if not argv:
        return Outcome()
    log = logs / f"{spec.name}-uninstall.log"
    code = host.run_program(argv, log=log, console=console, timeout=timeout)
    accepted = (*RESTART_CODES, *spec.uninstall.exit_codes)
    if host.paths.name(argv[0]).lower() == "msiexec.exe":
        # The application is gone already.
        accepted = (*accepted, _UNKNOWN_PRODUCT)
    return _outcome(code, accepted, log, argv[0])


def install_argv(
    host: Host, file: Path, arguments: Sequence[str], action: Action, *, logs: Path
) -> list[str]:
    """Return the program and arguments that run ``file`` for ``action``; ``logs`` is a folder.

    Raises:
        PackageCommandError: nothing runs a file with that extension.
    """
    if host.name != "windows":
        return [str(file), *arguments]
    extension = file.suffix.lower()
    path = host.host_path(file)
    if extension == ".ps1":
        return _script_argv(host, path, arguments)
    if extension in (".cmd", ".bat", ".exe"):
        return [path, *arguments]
    if action is not Action.VERIFY:
        if extension in (".msi", ".msp"):
            return _msiexec_argv(host, path, arguments, action, logs)
        if extension == ".msu":
            options = ["/uninstall"] if action is Action.UNINSTALL else []
            return [
                _system_program(host, "wusa.exe"),
                path,
                *options,
                "/quiet",
                "/norestart",
                *arguments,
            ]
        if extension in (".msix", ".msixbundle"):
            if action is Action.UNINSTALL:
                return _remove_msix_argv(host, file.name)
            source = (
                f"Add-AppxProvisionedPackage -Online -PackagePath {powershell_text(path)}"
                " -SkipLicense"
            )
            return _powershell_argv(host, " ".join([source, *arguments]))
    raise PackageCommandError(f"nothing runs {file.name!r} to {action.value} a package")


def is_success(code: int, extension: str, listed: Iterable[int]) -> bool:
    """Return whether a command of that extension succeeded; ``listed`` are the package's codes."""
    codes = {each & 0xFFFFFFFF for each in listed}
    if code == 0 or code & 0xFFFFFFFF in codes:
        return True
    if extension in _INSTALLERS:
        return code in RESTART_CODES
    # Where the package was written and tested every failure of a script is 1.
    return extension == ".ps1" and 1 in codes and code > 0


def _run_file(
    command: Command,
    folder: Path,
    host: Host,
    action: Action,
    console: Optional[TextIO],
    timeout: Optional[float],
) -> Outcome:
    if not command.path:
        return Outcome()
    file = folder.joinpath(*command.path.split("/"))
    if not file.is_file():
        raise PackageCommandError(
            f"the package has no file {command.path!r}, its {action.value} command"
        )
    argv = install_argv(host, file, command.args, action, logs=folder)
    log = _log_path(file, folder, host, action)
    code = host.run_program(argv, log=log, console=console, timeout=timeout)
    extension = file.suffix.lower() if host.name == "windows" else ""
    success = is_success(code, extension, command.exit_codes)
    return Outcome(
        success=success,
        exit_code=code,
        reboot_required=success and code in RESTART_CODES,
        log=log,
        ran=True,
        command=command.path,
    )


def _outcome(code: int, accepted: Iterable[int], log: Path, command: str) -> Outcome:
    success = code == 0 or code in accepted
    return Outcome(
        success=success,
        exit_code=code,
        reboot_required=success and code in RESTART_CODES,
        log=log,
        ran=True,
        command=command,
    )


def _log_path(file: Path, folder: Path, host: Host, action: Action) -> Path:
    if action is Action.VERIFY:
        return folder / "googet_verify.log"
    if host.name == "windows":
        return file.with_name(file.name + ".log")
    return folder / f"googet_{'install' if action is Action.INSTALL else 'remove'}.log"


def _system_program(host: Host, name: str) -> str:
    # In full: a bare name would first be searched in the current folder.
    root = host.variable("SystemRoot") or "C:\\Windows"
    return f"{root}\\System32\\{name}"


def _powershell_argv(host: Host, source: str) -> list[str]:
    program = _system_program(host, "WindowsPowerShell\\v1.0\\powershell.exe")
    return [program, *_POWERSHELL_OPTIONS, source]


def _script_argv(host: Host, path: str, arguments: Sequence[str]) -> list[str]:
    call = " ".join(["&", powershell_text(path), *arguments])
    # $? is false after a script's "exit" with another code than 0.
    ending = "if ($?) { exit 0 }; if ($LASTEXITCODE) { exit $LASTEXITCODE }; exit 1"
    return _powershell_argv(host, f"{call}; {ending}")


def _msiexec_argv(
    host: Host, path: str, arguments: Sequence[str], action: Action, logs: Path
) -> list[str]:
    is_patch = path.lower().endswith(".msp")
    log = host.host_path(logs / f"msi_{action.value}.log")
    options = ["/qn", "/norestart", "/log", log, *arguments]
    program = _system_program(host, "msiexec.exe")
    if action is Action.INSTALL:
        return [program, "/update" if is_patch else "/i", path, *options]
    if not is_patch:
        return [program, "/x", path, *options]
    product = host.patched_product(path)
    if not product:
        raise PackageCommandError(f"no product is installed that {path} is a patch of")
    return [program, "/package", product, "/uninstall", path, *options]


def _remove_msix_argv(host: Host, file_name: str) -> list[str]:
    name = powershell_text(Path(file_name).stem.partition("_")[0])
    return _powershell_argv(
        host,
        "Get-AppxProvisionedPackage -Online"
        f" | Where-Object {{ ($_.PackageName -split '_')[0] -eq {name} }}"
        " | Remove-AppxProvisionedPackage -Online",
    )


def _registered_uninstall(package: InstalledPackage, host: Host, logs: Path) -> list[str]:
    """Return the command of the package's application that removes it; nothing without one."""
    install = package.spec.install.path
    extension = Path(install).suffix.lower()
    if extension in (".msix", ".msixbundle"):
        return _remove_msix_argv(host, Path(install).name)
    entry = host.uninstall_entry(package.installed_app.reg) if package.installed_app.reg else None
    if entry is None:
        return []
    line = entry.value("UninstallString")
    if extension != ".msi":
        line = entry.value("QuietUninstallString") or line
    argv = _program_first(split_arguments(line), host)
    if argv and host.paths.name(argv[0]).lower() in ("msiexec.exe", "msiexec"):
        return _quiet_msiexec(argv[1:], host, logs)
    return argv


def _program_first(words: list[str], host: Host) -> list[str]:
    """Return the command with its program as one word, where an unquoted path has blanks."""
    for count in range(1, len(words) + 1):
        program = " ".join(words[:count])
        for path in (program, program + ".exe"):
            if _is_file(path, host):
                return [path, *words[count:]]
    return words


def _is_file(text: str, host: Host) -> bool:
    try:
        return host.kind_of(host.paths.cleaned(text)) == "file"
    except PathError:
        return False


def _quiet_msiexec(words: Sequence[str], host: Host, logs: Path) -> list[str]:
    """Return the registered call of msiexec, made to remove and to ask nothing.

    What is registered is often ``MsiExec.exe /I{CODE}``, which opens a window to repair or remove.
    """
    arguments = list(words)
    if arguments and arguments[0][:2].lower() in ("/i", "-i"):
        # The rest may be a path with blanks, which is quoted by itself.
        arguments[:1] = ["/X", arguments[0][2:]] if arguments[0][2:] else ["/X"]
    known = [word.lower() for word in arguments]
    more = [option for option in ("/qn", "/norestart") if option not in known]
    log = host.host_path(logs / "msi_uninstall.log")
    return [_system_program(host, "msiexec.exe"), *arguments, *more, "/log", log]
