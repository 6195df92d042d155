"""OpenPGP keys for tests: made when they are needed, by gpg, and good for nothing else."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from support.commands import run_command


def new_key_file(
    file: Path,
    *,
    kind: str = "ed25519",
    user: str = "Test <t@example.com>",
    use: str = "sign",
    valid: str = "never",
    passphrase: str = "",
) -> Path:
    """Write a new secret key, armored; `kind`, `use`, `valid` as gpg has them (`rsa2048`, `cert`).

    Several calls with the same file append: a file with several keys.
    """
    # Not below pytest's folders: the path of the agent's socket must be short.
    home = tempfile.mkdtemp(prefix="gpg-")
    try:
        gpg = ["gpg", "--homedir", home, "--batch", "--quiet", "--pinentry-mode", "loopback"]
        gpg += ["--passphrase", passphrase]
        run_command(
            [*gpg, "--quick-generate-key", user, kind, use, valid], purpose="make a test key"
        )
        exported = run_command([*gpg, "--armor", "--export-secret-keys"], purpose="export it")
        with file.open("a") as output:
            output.write(exported.stdout)
    finally:
        kill = ["gpgconf", "--homedir", home, "--kill", "all"]
        subprocess.run(kill, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        shutil.rmtree(home, ignore_errors=True)
    file.chmod(0o600)
    return file
