"""The commands that change packages: install, remove, update, verify, download, clean, check.

Each takes its flags apart, opens ROOT and leaves the work to ``googet.operations``.
"""

from __future__ import annotations

from pathlib import Path

from googet.cli.flags import Arguments, UsageError
from googet.cli.opening import Environment, changing, looking
from google_guest.errors import GuestError

_OK, _FAILED = 0, 1


def run_install(environment: Environment, arguments: Arguments) -> int:
    """``install [flags] NAME|FILE.goo...``."""
    from googet.operations.install import InstallOptions, install

    _need_arguments("install", arguments)
    if arguments.flag("redownload") and not arguments.flag("reinstall"):
        raise GuestError("install: -redownload goes with -reinstall only")
    options = InstallOptions(
        reinstall=arguments.flag("reinstall"),
        redownload=arguments.flag("redownload"),
        db_only=arguments.flag("db_only"),
        dry_run=arguments.flag("dry_run"),
        force=arguments.flag("force"),
        allow_downgrade=arguments.flag("allow_downgrade"),
    )
    with changing(environment, sources=arguments.text("sources")) as session:
        return _status(install(session, arguments.positionals, options))


def run_remove(environment: Environment, arguments: Arguments) -> int:
    """``remove [flags] NAME...``."""
    from googet.operations.remove import remove

    _need_arguments("remove", arguments)
    with changing(environment) as session:
        done = remove(
            session,
            arguments.positionals,
            db_only=arguments.flag("db_only"),
            dry_run=arguments.flag("dry_run"),
        )
        return _status(done)


def run_update(environment: Environment, arguments: Arguments) -> int:
    """``update [flags] [NAME...]``."""
    from googet.operations.update import UpdateOptions, update

    options = UpdateOptions(
        db_only=arguments.flag("db_only"),
        dry_run=arguments.flag("dry_run"),
        force=arguments.flag("force"),
    )
    with changing(environment, sources=arguments.text("sources")) as session:
        return _status(update(session, arguments.positionals, options))


def run_verify(environment: Environment, arguments: Arguments) -> int:
    """``verify [flags] NAME...``."""
    from googet.operations.verify import verify

    _need_arguments("verify", arguments)
    with changing(environment) as session:
        done = verify(
            session,
            arguments.positionals,
            reinstall=arguments.flag("reinstall"),
            skip_files=arguments.flag("skip_files"),
        )
        return _status(done)


def run_download(environment: Environment, arguments: Arguments) -> int:
    """``download [flags] NAME...``."""
    from googet.operations.download import download

    _need_arguments("download", arguments)
    folder = Path(arguments.text("download_dir") or ".")
    with looking(environment, sources=arguments.text("sources")) as session:
        return _status(
            download(session, arguments.positionals, folder, extracted=arguments.flag("extract"))
        )


def run_clean(environment: Environment, arguments: Arguments) -> int:
    """``clean [-all] [-packages NAMES] [-dry_run]``."""
    from googet.operations.clean import clean, clean_all, clean_packages

    _refuse_arguments(arguments)
    names = [name for name in arguments.text("packages").split(",") if name.strip()]
    dry_run = arguments.flag("dry_run")
    with changing(environment) as session:
        if arguments.flag("all"):
            return _status(clean_all(session, dry_run=dry_run))
        if names:
            return _status(clean_packages(session, names, dry_run=dry_run))
        return _status(clean(session, dry_run=dry_run))


def run_check(environment: Environment, arguments: Arguments) -> int:
    """``check [flags]``."""
    from googet.operations.check import check

    _refuse_arguments(arguments)
    with changing(environment, sources=arguments.text("sources")) as session:
        done = check(session, db_only=arguments.flag("db_only"), dry_run=arguments.flag("dry_run"))
        return _status(done)


def _status(succeeded: bool) -> int:
    return _OK if succeeded else _FAILED


def _need_arguments(command: str, arguments: Arguments) -> None:
    if not arguments.positionals:
        raise GuestError(f"{command}: name at least one package")


def _refuse_arguments(arguments: Arguments) -> None:
    if arguments.positionals:
        raise UsageError(f"unexpected argument {arguments.positionals[0]!r}")
