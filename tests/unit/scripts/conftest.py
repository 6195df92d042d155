"""A guest in a folder, a metadata server, the internet on loopback, and the runner between them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

import pytest
from unit.scripts.web import Certificate, Web, make_certificate

from google_guest.cli.scripts import parse_arguments, run
from google_guest.records import replace
from google_guest.scripts.events import Patience
from google_guest.system import System
from metadata_server.emulator import Emulator

PASSWD = "root:x:0:0:root:/root:/bin/bash\ndaemon:x:1:1::/:/usr/sbin/nologin\n"


@dataclass(frozen=True)
class Told:
    """What one run of the runner wrote and returned."""

    lines: tuple[str, ...]
    status: int

    def from_script(self, key: str = "startup-script") -> list[str]:
        return [line[len(key) + 2 :] for line in self.lines if line.startswith(f"{key}: ")]


@dataclass
class ScriptGuest:
    """A tree that stands for the guest's root, and its metadata server."""

    root: Path
    mds: Emulator
    environment: dict[str, str] = field(default_factory=dict)

    def set(self, key: str, value: str, *, level: str = "instance") -> None:
        self.mds.set(f"{level}/attributes/{key}", value)

    def configure(self, *lines: str) -> None:
        text = "\n".join(["[MetadataScripts]", *lines, ""])
        (self.root / "etc/default/instance_configs.cfg").write_text(text)

    def system(self) -> System:
        return System(root=self.root)

    def scripts_left(self) -> list[Path]:
        return list(self.root.rglob("metadata-scripts*"))

    def run(self, *words: str, patience: Optional[Patience] = None) -> Told:
        arguments = parse_arguments(words or ["startup"])
        if patience is not None:
            event = replace(arguments.event, patience=patience)
            arguments = replace(arguments, event=event)
        log = self.root / "log"
        with log.open("wb") as file:
            status = run(
                arguments,
                self.system(),
                environment=self.environment,
                descriptor=file.fileno(),
            )
        return Told(tuple(log.read_text().splitlines()), status)


IMPATIENT = Patience(
    metadata_request=0.2,
    metadata_total=0.3,
    name_lookups=1,
    name_pause=0.1,
    download_total=0.5,
    report_request=0.2,
)


@pytest.fixture
def mds() -> Iterator[Emulator]:
    with Emulator(profile="minimal") as emulator:
        yield emulator
        assert not emulator.failures


@pytest.fixture
def guest(tmp_path: Path, mds: Emulator) -> ScriptGuest:
    root = tmp_path / "guest"
    for folder in ("etc/default", "tmp", "var/tmp", "root", "run"):
        (root / folder).mkdir(parents=True)
    for folder in ("tmp", "var/tmp"):
        (root / folder).chmod(0o1777)
    (root / "etc/passwd").write_text(PASSWD)
    environment = {"PATH": os.environ["PATH"], "GCE_METADATA_HOST": mds.host}
    return ScriptGuest(root, mds, environment)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture
def web(certificate: Certificate, monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    """The internet; its certificate is in the system's trust store as far as OpenSSL can tell."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.chain))
    with Web(certificate) as server:
        yield server
