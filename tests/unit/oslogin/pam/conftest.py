"""The PAM modules, compiled once for the folders and the user of the tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from unit.oslogin.pam.modules import (
    HERE,
    ROOT,
    SANITIZERS,
    SECOND_MS,
    SOURCE,
    Module,
    Reply,
    Service,
    need,
    need_pam_headers,
)

Serve = Callable[..., Service]


class Place(NamedTuple):
    """Where the builds look."""

    folder: Path
    socket: Path
    passwd: Path
    users: Path


@pytest.fixture(scope="session")
def place() -> Iterator[Place]:
    # Not pytest's folder: a socket's path has at most 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="pam-"))
    one = Place(folder, folder / "auth.sock", folder / "passwd", folder / "users")
    one.users.mkdir()
    one.passwd.write_text("root:x:0:0:root:/root:/bin/sh\nlocal:x:1000:1000::/:/bin/sh\nlast:x:1")
    yield one
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def paths_header(place: Place) -> Path:
    header = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "oslogin-header")], check=True, capture_output=True
    )
    (place.folder / "paths.h").write_bytes(header.stdout)
    return place.folder


@pytest.fixture(scope="session")
def build(place: Place, paths_header: Path) -> Callable[..., Module]:
    """Compiles a module with the driver: flavour, further options."""

    def compiled(flavour: str = "plain", *more: str) -> Module:
        need_pam_headers()
        target = place.folder / "-".join([flavour, *(flag.strip("-") for flag in more)])
        if not target.exists():
            command = [need("gcc"), "-O1", "-g", "-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra"]
            command += ["-Werror", *SANITIZERS[flavour], f"-I{paths_header}"]
            command += [f'-DOSLOGIN_AUTH_SOCKET="{place.socket}"']
            command += [f'-DOSLOGIN_PASSWD_FILE="{place.passwd}"']
            command += [f'-DOSLOGIN_USERS_FOLDER="{place.users}"']
            command += [f"-DOSLOGIN_SECOND_MS={SECOND_MS}"]
            if not any(flag.startswith("-DOSLOGIN_SERVER_UID") for flag in more):
                command += [f"-DOSLOGIN_SERVER_UID={os.geteuid()}"]
            command += [*more, str(SOURCE / "pam_oslogin.c"), str(HERE / "driver.c")]
            subprocess.run([*command, "-o", str(target)], check=True)
        return Module(target, place.socket)

    return compiled


@pytest.fixture(scope="session", params=sorted(SANITIZERS))
def login(request: pytest.FixtureRequest, build: Callable[..., Module]) -> Module:
    return build(request.param)


@pytest.fixture(scope="session")
def admin(build: Callable[..., Module]) -> Module:
    return build("sanitized", "-DOSLOGIN_ADMIN")


@pytest.fixture
def serve(place: Place) -> Iterator[Serve]:
    """Starts a service with these replies; it ends with the test."""
    services: list[Service] = []

    def start(*replies: Reply) -> Service:
        services.append(Service(place.socket, replies))
        return services[-1]

    yield start
    for service in services:
        service.close()
