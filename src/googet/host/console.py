"""Running a program in the user's own terminal.

What :meth:`googet.host.Host.run_program` does with logs and time limits is for the commands of
packages; a build command belongs to whoever packs, who sees its output and may answer it.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from googet.host import HostError


def run_in_console(argv: Sequence[str], folder: Path) -> int:
    """Run a program to its end in ``folder``, with this process's environment and streams.

    Returns:
        its exit code; negative for the signal that ended it.

    Raises:
        HostError: it cannot be started.
    """
    # What was printed before must be above what the program prints.
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        return subprocess.run(list(argv), cwd=folder, check=False).returncode
    except OSError as error:
        raise HostError(f"{argv[0]} cannot be run: {error.strerror or error}") from error
    except ValueError as error:
        # A zero character in an argument.
        raise HostError(f"{argv[0]!r} cannot be run: {error}") from error
