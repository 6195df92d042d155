"""The Windows half of ``make demo``: packages, the service and a password reset, under Wine.

A repository of the built packages is served over HTTP on a network of its own; Windows CPython
under Wine runs the packages' googet from its archive, which installs the others; the service
manager starts the agent, and the metadata server asks it for a password. Wine has no accounts, so
that the agent keeps the user in memory; everything else is what an instance does.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

TOP = Path(__file__).resolve().parents[1]
ROOT = r"C:\ProgramData\GooGet"
GOOGET = rf"{ROOT}\googet.exe"
SCRIPTS = r"C:\Program Files\Google\Compute Engine\metadata_scripts\GCEMetadataScripts.exe"
PORT = "8000"
PACKAGES = ("google-compute-engine-windows", "google-compute-engine-metadata-scripts")
Step = Callable[[str], AbstractContextManager["list[str]"]]


def demonstrate_windows(step: Step) -> None:
    """The whole story; needs root and what the Wine beds of the tests need."""
    from support import wine_root
    from support.wine import Wine

    problems = wine_root.problems()
    if problems:
        with step("Windows: left out") as results:
            results.append("it needs " + "; ".join(problems))
        return
    with step("Windows: build the packages and their repository") as results:
        subprocess.run(["make", "-s", "-C", str(TOP), "repo-goo"], check=True, capture_output=True)
        built = sorted((TOP / "dist/goo-repo/packages").glob("*.goo"))
        results += [f"{path.name}  {path.stat().st_size // 1024} KiB" for path in built]
    with step("Windows: make a prefix (kept for the next time)") as results:
        results.append(f"Windows Python on {wine_root.template().parents[1].name}")
    with Wine() as wine:
        for name in wine.mds.get("instance/attributes"):
            if name.startswith("windows-"):
                wine.mds.delete(f"instance/attributes/{name}")
        wine.registry.set(
            r"HKLM\SYSTEM\HardwareConfig\Current", "SystemProductName", "Google Compute Engine"
        )
        _install(step, wine)
        _reset_password(step, wine)
        _run_script(step, wine)
        _remove(step, wine)


def _install(step: Step, wine: Any) -> None:
    with step("Windows: serve the repository and unpack googet") as results:
        wine.serve(
            [
                *(sys.executable, str(TOP / "tools/gooserve"), "-root", str(TOP / "dist/goo-repo")),
                *("-address", wine.gateway, "-port", PORT),
            ]
        )
        _unpack_googet(wine)
        results.append(wine.run([GOOGET, "-version"]).stdout)
    with step("Windows: show the plan of an installation, changing nothing") as results:
        url = f"http://{wine.gateway}:{PORT}/repo"
        wine.run([GOOGET, "-root", ROOT, "addrepo", "demo", url])
        wine.wait_until(
            lambda: wine.run([GOOGET, "-root", ROOT, "available"], check=False).status == 0,
            30,
            "the repository is served",
        )
        results.append(wine.run([GOOGET, "-root", ROOT, "install", "-dry_run", *PACKAGES]).stdout)
    with step("Windows: install them") as results:
        command = [GOOGET, "-root", ROOT, "-noconfirm", "install", *PACKAGES]
        wine.run(command, timeout=300)
        results.append(wine.run([GOOGET, "-root", ROOT, "installed"]).stdout)
        results.append(f"the service GCEAgent is {wine.service('GCEAgent').state()}")


def _unpack_googet(wine: Any) -> None:
    from googet.archive import extract

    (archive,) = (TOP / "dist/goo-repo/packages").glob("googet.*.goo")
    with tempfile.TemporaryDirectory(prefix="google-guest-demo-") as folder:
        extract(archive, Path(folder) / "googet")
        wine.install_tree(Path(folder) / "googet" / "GooGet", ROOT)
    wine.write(rf"{ROOT}\googet.conf", "allowunsafeurl: true\n")


def _reset_password(step: Step, wine: Any) -> None:
    with step("Windows: the agent says on COM4 that it is ready") as results:
        service = wine.service("GCEAgent")
        service.stop()
        service.start("--accounts=memory")
        wine.wait_until(lambda: '"ready":true' in wine.com("COM4"), 30, "the agent is ready")
        results.append(wine.com("COM4").splitlines()[-1])
    with (
        step("Windows: ask for a password of ana and decrypt the answer") as results,
        _key() as key,
    ):
        request = {
            "userName": "ana",
            "modulus": key.modulus,
            "exponent": "AQAB",
            "expireOn": "2099-01-01T00:00:00Z",
            "hashFunction": "sha256",
        }
        wine.mds.set("instance/attributes/windows-keys", json.dumps(request))
        wine.wait_until(lambda: key.modulus in wine.com("COM4"), 30, "the request is answered")
        answer = json.loads(wine.com("COM4").splitlines()[-1])
        password = key.decrypted(answer["encryptedPassword"])
        shown = f"{password[:2]}{'*' * (len(password) - 2)}"
        results.append(f"{answer['userName']}: {shown} ({len(password)} characters)")


def _run_script(step: Step, wine: Any) -> None:
    with step("Windows: run a startup script of the metadata") as results:
        script = "@echo off\r\necho hello from %COMPUTERNAME%\r\n"
        wine.mds.set("instance/attributes/windows-startup-script-cmd", script)
        wine.run([SCRIPTS, "startup"])
        results += [line for line in wine.com("COM1").splitlines() if "GCEMetadataScripts" in line]


def _remove(step: Step, wine: Any) -> None:
    with step("Windows: remove everything again") as results:
        command = [GOOGET, "-root", ROOT, "-noconfirm", "remove", "google-guest-python-runtime"]
        results.append(wine.run(command, timeout=120).stdout)
        results.append(f"the service GCEAgent is {wine.service('GCEAgent').state() or 'gone'}")


class _Key:
    """The RSA key of somebody who asks for a password, in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        _openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", path)
        text = _openssl("rsa", "-in", path, "-noout", "-modulus").decode()
        number = bytes.fromhex(text.strip().partition("=")[2])
        self.modulus = base64.b64encode(number).decode()

    def decrypted(self, text: str) -> str:
        """Return what an answer holds."""
        options = ("rsa_padding_mode:oaep", "rsa_oaep_md:sha256", "rsa_mgf1_md:sha256")
        pairs = [word for option in options for word in ("-pkeyopt", option)]
        data = base64.b64decode(text)
        return _openssl("pkeyutl", "-decrypt", "-inkey", self._path, *pairs, data=data).decode()


@contextmanager
def _key() -> Iterator[_Key]:
    with tempfile.TemporaryDirectory(prefix="google-guest-demo-") as folder:
        os.chmod(folder, 0o700)
        yield _Key(Path(folder) / "key.pem")


def _openssl(*arguments: object, data: bytes = b"") -> bytes:
    command = ["openssl", *map(str, arguments)]
    return subprocess.run(command, input=data, check=True, capture_output=True).stdout
