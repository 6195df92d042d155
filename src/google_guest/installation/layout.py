r"""Where the Windows packages' parts are, relative to each other.

::

    C:\Program Files\Google\Compute Engine\
        instance_configs.cfg        the administrator's
        agent\                      google-compute-engine-windows
        agent\python\               google-guest-python-runtime
        agent\python\Lib\site-packages\google-guest.pth
                                    the pointer to the library in use, owned by no package
        agent\lib\20261124.00\      google-guest-library
        metadata_scripts\           google-compute-engine-metadata-scripts

The library has a folder for each version, because files are placed under running services: a
process that imports a module late must not find the one of another version.
"""

from __future__ import annotations

from google_guest.places import WINDOWS

BASE = WINDOWS.config.rpartition("\\")[0]
AGENT = rf"{BASE}\agent"
PYTHON = rf"{AGENT}\python\python.exe"
LIBRARIES = rf"{AGENT}\lib"
POINTER = rf"{AGENT}\python\Lib\site-packages\google-guest.pth"
METADATA_SCRIPTS = rf"{BASE}\metadata_scripts"

LIBRARIES_FROM_POINTER = r"..\..\..\lib"
"""``LIBRARIES`` as seen from the pointer's folder, which lines of a ``.pth`` file start from."""
