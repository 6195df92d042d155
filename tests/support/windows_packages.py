"""googet and our Windows packages in a Wine bed: a repository, the client, its answers."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from googet.archive import extract
from support.commands import Completed
from support.debs import SOURCE_TREE
from support.wine import Wine

ROOT = r"C:\ProgramData\GooGet"
GOOGET = rf"{ROOT}\googet.exe"
BOOTSTRAP = r"C:\bootstrap"
"""Where googet's archive is unpacked by hand, as image builds do that have no googet yet."""
BASE = r"C:\Program Files\Google\Compute Engine"
ENVIRONMENT = r"HKLM\SYSTEM\CurrentControlSet\Control\Session Manager\Environment"
FIRMWARE = r"HKLM\SYSTEM\HardwareConfig\Current"

_PORT = 8000
_SERVER = SOURCE_TREE / "tools" / "gooserve"
_OF_THE_BED = {"PYTHONPATH": None}
"""What the bed gives every program and a machine does not."""


class PackageMachine:
    """A Wine bed with a repository in its network and googet's settings for it."""

    def __init__(self, wine: Wine, goos: Iterable[Path]) -> None:
        self.wine = wine
        self.path_before: str = wine.registry.value(ENVIRONMENT, "PATH")
        self.agent_before = 0
        """The process of the agent's service before an upgrade."""
        self._repository = Path(tempfile.mkdtemp(prefix="repository-", dir=wine.directory))
        (self._repository / "packages").mkdir()
        self.publish(goos)
        wine.serve(
            [
                *(sys.executable, str(_SERVER), "-root", str(self._repository)),
                *("-port", str(_PORT), "-interval", "500ms"),
            ],
            log="gooserve.log",
        )
        # Indexes are asked for anew each time, and the bed's network has no certificates.
        wine.write(rf"{ROOT}\googet.conf", "allowunsafeurl: true\ncachelife: 0s\n")
        wine.write(rf"{ROOT}\repos\tests.repo", f"- name: tests\n  url: {self.address}\n")
        # The agent ends at once on what is no Compute Engine instance.
        wine.registry.set(FIRMWARE, "SystemProductName", "Google Compute Engine")

    @property
    def address(self) -> str:
        """The repository's address as the bed sees it."""
        return f"http://{self.wine.gateway}:{_PORT}/repo"

    def publish(self, goos: Iterable[Path]) -> None:
        """Add packages to the repository."""
        for goo in goos:
            shutil.copy2(goo, self._repository / "packages")

    def wait_for_index(self, text: str) -> None:
        """Wait until the repository's index has a text, such as a version."""
        program = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1]).read().decode())"
        self.wine.wait_until(
            lambda: text in self.wine.py(program, f"{self.address}/index", check=False).stdout,
            20,
            f"the index has {text}",
        )

    def bootstrap(self, googet: Path) -> None:
        """Unpack googet's archive by hand and let it install its own package."""
        folder = Path(tempfile.mkdtemp(prefix="bootstrap-", dir=self.wine.directory))
        extract(googet, folder / "googet")
        self.wine.install_tree(folder / "googet" / "GooGet", BOOTSTRAP)
        shutil.rmtree(folder)
        self.googet("install", "googet", program=rf"{BOOTSTRAP}\googet.exe")

    def googet(
        self, *arguments: str, check: bool = True, program: str = GOOGET, timeout: float = 180
    ) -> Completed:
        """Run googet without questions."""
        command = [program, "-noconfirm", "-root", ROOT, *arguments]
        return self.run(command, check=check, timeout=timeout)

    def run(self, command: Iterable[str], *, check: bool = True, timeout: float = 60) -> Completed:
        """Run a program as on a machine without the test's modules."""
        return self.wine.run(list(command), check=check, timeout=timeout, environment=_OF_THE_BED)

    def installed(self) -> dict[str, str]:
        """The installed packages and their versions."""
        lines = self.googet("installed", check=False).stdout.splitlines()[1:]
        words = [line.split() for line in lines if line.strip()]
        return {name.partition(".")[0]: version for name, version in words}

    def files(self, folder: str) -> list[str]:
        r"""The files below a folder, as paths relative to it with backslashes."""
        top = self.wine.path(folder)
        found = (path for path in top.rglob("*") if path.is_file() or path.is_symlink())
        return sorted(str(path.relative_to(top)).replace("/", "\\") for path in found)
