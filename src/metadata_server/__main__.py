"""``python -m metadata_server``: the program google_mds_emulator."""

from __future__ import annotations

import sys

from metadata_server.cli import main

if __name__ == "__main__":
    sys.exit(main())
