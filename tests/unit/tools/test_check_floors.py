"""The checker of floors: what it lets pass and what it names."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CHECKER = Path(__file__).resolve().parents[3] / "tools" / "check-floors"


def findings(source: Path, modules: dict[str, str]) -> list[str]:
    """What the checker says of a source folder with these modules."""
    for name, text in modules.items():
        path = source / "src" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    done = subprocess.run(
        [sys.executable, str(CHECKER), str(source / "src")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode == 0) == (done.stderr == "")
    return done.stderr.splitlines()


@pytest.mark.parametrize(
    "modules",
    [
        pytest.param(
            {"google_guest/cli/agent.py": "from google_guest.agent import Agent\n"}, id="downward"
        ),
        pytest.param(
            {"google_guest/state.py": "from google_guest.changes import Change\n"}, id="same floor"
        ),
        pytest.param({"google_guest/system/commands.py": "import subprocess\n"}, id="in system"),
        pytest.param({"googet/install.py": "from google_guest.config import x\n"}, id="component"),
        pytest.param({"metadata_server/tls.py": "import subprocess\n"}, id="development tool"),
        pytest.param({"googet/host/programs.py": "import subprocess\n"}, id="googet's host"),
        pytest.param(
            {
                "google_guest/state.py": "def f():\n    import google_guest.windows_keys\n",
                "google_guest/windows_keys.py": "import google_guest.system.windows.registry\n",
                "google_guest/system/windows/registry.py": "",
            },
            id="Windows in a function, and below Windows",
        ),
        pytest.param(
            {
                "google_guest/state.py": "from google_guest.changes import Change\n",
                "google_guest/changes/__init__.py": "def f():\n    import google_guest.state\n",
            },
            id="circle that no loading makes",
        ),
    ],
)
def test_sound_imports_pass(tmp_path: Path, modules: dict[str, str]) -> None:
    assert findings(tmp_path, modules) == []


@pytest.mark.parametrize(
    ("modules", "named"),
    [
        pytest.param(
            {"google_guest/system/files.py": "from google_guest.config import Config\n"},
            "system (floor 0) imports google_guest.config (floor 1)",
            id="upward",
        ),
        pytest.param(
            {
                "google_guest/config.py": "def f():\n    from google_guest import agent\n",
                "google_guest/agent.py": "",
            },
            "config (floor 1) imports google_guest.agent (floor 3)",
            id="upward in a function",
        ),
        pytest.param(
            {"google_guest/config.py": "import google_guest.cli.guest\n"},
            "config (floor 1) imports google_guest.cli.guest (floor 4)",
            id="upward by import",
        ),
        pytest.param(
            {
                "google_guest/state.py": "from google_guest.changes import Change\n",
                "google_guest/changes/__init__.py": "from google_guest.state import read\n",
            },
            "circle: ",
            id="circle",
        ),
        pytest.param(
            {"google_guest/config.py": "import googet\n", "googet/__init__.py": ""},
            "google_guest imports the component googet",
            id="library imports component",
        ),
        pytest.param(
            {"googet/__init__.py": "from osconfig import x\n", "osconfig/__init__.py": ""},
            "googet imports the component osconfig",
            id="component imports component",
        ),
        pytest.param(
            {"google_guest/features/linux/x.py": "import subprocess\n"},
            "imports subprocess",
            id="program outside system",
        ),
        pytest.param(
            {"googet/run.py": "try:\n    import subprocess\nexcept ImportError:\n    pass\n"},
            "imports subprocess",
            id="program in a component",
        ),
        pytest.param(
            {"google_guest/novelty.py": ""}, "stands on no floor", id="module without a floor"
        ),
    ],
)
def test_unsound_import_is_named(tmp_path: Path, modules: dict[str, str], named: str) -> None:
    (found,) = findings(tmp_path, modules)
    assert named in found
