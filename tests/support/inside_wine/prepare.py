"""Runs once in Windows Python when the prefix is made: what a first use would otherwise do.

pywin32 moves its service host and copies its DLLs beside python.exe at the first installation of
a service; the wheels are compiled, so that no bed has to.
"""

from __future__ import annotations

import compileall
import os
import shutil
import sys

HERE = os.path.dirname(sys.executable)
PACKAGES = os.path.join(HERE, "Lib", "site-packages")


def main() -> None:
    for folder, names in (
        ("pywin32_system32", ("pythoncom313.dll", "pywintypes313.dll")),
        ("win32", ("pythonservice.exe",)),
    ):
        for name in names:
            shutil.copyfile(os.path.join(PACKAGES, folder, name), os.path.join(HERE, name))
    compileall.compile_dir(PACKAGES, quiet=2, workers=1)


if __name__ == "__main__":
    main()
