"""Builds of the name service object for tests, programs that call it, and a scripted service."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from unit.oslogin.nss.name_service import (
    HERE,
    SANITIZERS,
    SOURCE,
    WARNINGS,
    Driver,
    Files,
    Service,
    need,
)


@pytest.fixture(scope="session")
def files() -> Iterator[Files]:
    folder = Path(tempfile.mkdtemp(prefix="nss-"))
    yield Files(folder / "cache", folder / "nss.sock", folder / "passwd")
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def build(files: Files, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Gives the driver of a flavour, compiled once."""
    folder = tmp_path_factory.mktemp("drivers")

    def compiled(flavour: str, *more: str) -> Path:
        target = folder / "-".join([flavour, *(flag.strip("-") for flag in more)])
        if not target.exists():
            sources = [str(path) for path in sorted(SOURCE.glob("*.c"))]
            command = [need("gcc"), "-O1", "-g", *WARNINGS, *SANITIZERS[flavour]]
            command += [*files.definitions(), "-DOSLOGIN_DEADLINE_MS=300", *more, f"-I{SOURCE}"]
            command += [str(HERE / "driver.c"), *sources, "-o", str(target), "-pthread"]
            subprocess.run(command, check=True)
        return target

    return compiled


@pytest.fixture(scope="session", params=["plain", "asan", "tsan"])
def driver(request: pytest.FixtureRequest, build: Callable[[str], Path]) -> Iterator[Driver]:
    one = Driver([str(build(request.param))])
    yield one
    one.close()


@pytest.fixture
def cache(files: Files) -> Iterator[Callable[[bytes], None]]:
    """Publishes a cache file; it is gone after the test."""

    def publish(data: bytes) -> None:
        new = files.cache.with_suffix(".new")
        new.write_bytes(data)
        new.chmod(0o644)
        new.replace(files.cache)

    yield publish
    with contextlib.suppress(FileNotFoundError):
        files.cache.unlink()


@pytest.fixture
def service(files: Files) -> Iterator[Service]:
    one = Service(files.socket)
    one.start()
    yield one
    one.close()
