"""The commands of googet: names, groups, flags and what people read about them.

Names, flags and groups are the reference's; image builds and OS Config call them.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Optional

from googet.cli.flags import Arguments, Flags
from google_guest.records import record

if TYPE_CHECKING:
    from googet.cli.opening import Environment

PACKAGE_MANAGEMENT = "package management"
PACKAGE_QUERY = "package query"
REPOSITORY_MANAGEMENT = "repository management"
#: In the order in which help lists them; "" is for what belongs to no group.
GROUPS = ("", PACKAGE_MANAGEMENT, PACKAGE_QUERY, REPOSITORY_MANAGEMENT)

#: Runs a command and returns the exit status.
Runner = Callable[["Environment", Arguments], int]

_SOURCES = "comma separated repositories, used instead of the repository files"
_DRY_RUN = "only show what would be done"
_FORMAT = "simple or json"


class Reported(Exception):
    """The command has failed, and what there is to say has been said and logged."""


@record
class Subcommand:
    """One command."""

    name: str
    group: str
    summary: str
    synopsis: str
    description: str
    #: Booleans, their descriptions and defaults; texts likewise.
    booleans: tuple[tuple[str, str, bool], ...] = ()
    texts: tuple[tuple[str, str, str], ...] = ()
    #: ``module:function`` below googet.cli.
    run: str = ""

    def flags(self) -> Flags:
        """Return the command's own flags."""
        flags = Flags(f"googet {self.synopsis}")
        for name, text, default in self.booleans:
            flags.boolean(name, text, default=default)
        for name, text, value in self.texts:
            flags.string(name, text, default=value)
        return flags

    def runner(self) -> Runner:
        """Import what the command needs and return the function that runs it."""
        module, _, function = self.run.partition(":")
        found: Any = getattr(importlib.import_module(f"googet.cli.{module}"), function)
        runner: Runner = found
        return runner


SUBCOMMANDS = (
    Subcommand(
        "clean",
        "",
        "empty the cache",
        "clean [-all] [-packages NAMES] [-dry_run]",
        "Deletes everything in the cache but the archives of installed packages.",
        booleans=(
            ("all", "delete everything", False),
            ("dry_run", _DRY_RUN, False),
        ),
        texts=(("packages", "delete only these packages' archives (comma separated)", ""),),
        run="packages:run_clean",
    ),
    Subcommand(
        "commands",
        "",
        "list the names of all commands",
        "commands",
        "Prints the name of every command, one a line.",
    ),
    Subcommand(
        "flags",
        "",
        "describe the flags",
        "flags [COMMAND]",
        "Describes the top-level flags, or those of a command.",
    ),
    Subcommand(
        "help",
        "",
        "describe the commands",
        "help [COMMAND]",
        "Describes all commands in a line each, or one command.",
    ),
    Subcommand(
        "download",
        PACKAGE_MANAGEMENT,
        "download packages without installing them",
        "download [-download_dir DIR] [-extract] [-sources URLS] NAME...",
        "Downloads packages (NAME, NAME.ARCH or NAME.ARCH.VERSION) into a folder.",
        booleans=(("extract", "extract each package into a folder beside it, too", False),),
        texts=(
            ("download_dir", "folder to download into (default: the current one)", ""),
            ("sources", _SOURCES, ""),
        ),
        run="packages:run_download",
    ),
    Subcommand(
        "install",
        PACKAGE_MANAGEMENT,
        "install packages and what they need",
        "install [flags] NAME|FILE.goo...",
        "Installs packages (NAME, NAME.ARCH, NAME.ARCH.VERSION or a .goo file), and what they need."
        "\nA package that is there already, in this version or a newer one, is left alone.",
        booleans=(
            ("reinstall", "install installed packages again, from where they came from", False),
            ("redownload", "with -reinstall: download the package again", False),
            ("db_only", "only write the database, place and run nothing", False),
            ("dry_run", _DRY_RUN, False),
            ("force", "overwrite files of other packages in spite of strictconflicts", False),
            ("allow_downgrade", "go back to an older version where one is asked for", False),
        ),
        texts=(("sources", _SOURCES, ""),),
        run="packages:run_install",
    ),
    Subcommand(
        "remove",
        PACKAGE_MANAGEMENT,
        "remove packages and what needs them",
        "remove [-db_only] [-dry_run] NAME...",
        "Removes packages (NAME, NAME.ARCH or NAME.ARCH.VERSION) and everything that needs them.",
        booleans=(
            ("db_only", "only forget the packages, delete and run nothing", False),
            ("dry_run", _DRY_RUN, False),
        ),
        run="packages:run_remove",
    ),
    Subcommand(
        "update",
        PACKAGE_MANAGEMENT,
        "update installed packages",
        "update [flags] [NAME...]",
        "Updates everything that is installed, or the packages named, from the repositories.",
        booleans=(
            ("db_only", "only write the database, place and run nothing", False),
            ("dry_run", _DRY_RUN, False),
            ("force", "overwrite files of other packages in spite of strictconflicts", False),
        ),
        texts=(("sources", _SOURCES, ""),),
        run="packages:run_update",
    ),
    Subcommand(
        "verify",
        PACKAGE_MANAGEMENT,
        "verify installed packages",
        "verify [-reinstall] [-skip_files] NAME...",
        "Runs the packages' own verification and compares their files with what was installed.",
        booleans=(
            ("reinstall", "install what is damaged again", False),
            ("skip_files", "do not compare files", False),
        ),
        run="packages:run_verify",
    ),
    Subcommand(
        "available",
        PACKAGE_QUERY,
        "list what the repositories have",
        "available [-info] [-format FORMAT] [-sources URLS] [TEXT]",
        "Lists all packages of the repositories, or those with TEXT in NAME.ARCH.VERSION.",
        booleans=(("info", "describe each package", False),),
        texts=(("sources", _SOURCES, ""), ("format", _FORMAT, "simple")),
        run="queries:run_available",
    ),
    Subcommand(
        "check",
        PACKAGE_QUERY,
        "find applications that packages are about",
        "check [-dry_run] [-db_only=false] [-sources URLS]",
        "Finds installed applications that googet has packages of but did not install, and records"
        "\nthese packages as installed.",
        booleans=(
            ("dry_run", "only list them", False),
            ("db_only", "record the packages; false: install them", True),
        ),
        texts=(("sources", _SOURCES, ""),),
        run="packages:run_check",
    ),
    Subcommand(
        "installed",
        PACKAGE_QUERY,
        "list what is installed",
        "installed [-info] [-files] [-format FORMAT] [NAME]",
        "Lists installed packages; NAME can have an architecture and a version, and * or % for any"
        "\ntext.",
        booleans=(
            ("info", "describe each package", False),
            ("files", "list each package's files", False),
        ),
        texts=(("format", _FORMAT, "simple"),),
        run="queries:run_installed",
    ),
    Subcommand(
        "latest",
        PACKAGE_QUERY,
        "print the newest version that the repositories have",
        "latest [-compare [-json]] [-sources URLS] NAME",
        "Prints the version that install would choose for NAME or NAME.ARCH.",
        booleans=(
            ("compare", "compare it with what is installed", False),
            ("json", "with -compare: print JSON", False),
        ),
        texts=(("sources", _SOURCES, ""),),
        run="queries:run_latest",
    ),
    Subcommand(
        "addrepo",
        REPOSITORY_MANAGEMENT,
        "add a repository",
        "addrepo [-file FILE.repo] [-priority PRIORITY] [-dry_run] NAME URL",
        "Adds a repository to FILE.repo (default NAME.repo). An entry with the same name or URL is"
        "\nreplaced, others stay. PRIORITY: default, canary, pin, rollback, or a number.",
        booleans=(("dry_run", _DRY_RUN, False),),
        texts=(
            ("file", "name of the repository file", ""),
            ("priority", "priority of the repository", ""),
        ),
        run="repository_files:run_addrepo",
    ),
    Subcommand(
        "listrepos",
        REPOSITORY_MANAGEMENT,
        "list the repositories",
        "listrepos [-format FORMAT]",
        "Lists the repositories of every repository file.",
        texts=(("format", _FORMAT, "simple"),),
        run="repository_files:run_listrepos",
    ),
    Subcommand(
        "rmrepo",
        REPOSITORY_MANAGEMENT,
        "remove a repository",
        "rmrepo [-dry_run] NAME",
        "Removes the entries with that name, in any case, from all repository files.",
        booleans=(("dry_run", _DRY_RUN, False),),
        run="repository_files:run_rmrepo",
    ),
)


def find_subcommand(name: str) -> Optional[Subcommand]:
    """Return the command of that name."""
    return next((command for command in SUBCOMMANDS if command.name == name), None)
