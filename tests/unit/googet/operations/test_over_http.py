"""Commands against repositories on loopback: a real gooserve, and a server that misbehaves."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.goo_machine import Machine
from unit.googet.loopback import Origin, Reply

from googet.publishing import Layout, Scanner
from googet.server import Index, RepositoryServer


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    machine = Machine(tmp_path)
    (machine.root / "repos" / "repo.repo").unlink()
    machine.configure("allowunsafeurl: true\n")
    return machine


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as origin:
        yield origin


def serve(machine: Machine, origin: Origin, *packages: Path) -> str:
    """Serve packages as the repository ``/repo`` and return its address."""
    machine.publish(*packages)
    index = machine.served / "repo" / "repo" / "index"
    origin.page("/repo/index", Reply(index.read_bytes()))
    for package in packages:
        origin.file(f"/packages/{package.name}", package.read_bytes())
    url = f"{origin.url}/repo"
    machine.ok("addrepo", "web", url)
    origin.visits.clear()
    return url


def test_client_of_gooserve_installs_updates_and_removes(machine: Machine) -> None:
    root = machine.folder / "gooserve"
    (root / "packages").mkdir(parents=True)
    shutil.copy(machine.goo("a", "1.0.0", contents={"v": "1"}), root / "packages")
    scanner = Scanner(root, Layout())
    index = Index(scanner)
    index.refresh()
    server = RepositoryServer(index, scanner.folder, Layout(), address="127.0.0.1", port=0)
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        machine.ok("addrepo", "web", server.url)
        machine.ok("install", "a")
        assert machine.read("v") == "1"
        shutil.copy(machine.goo("a", "2.0.0", contents={"v": "2"}), root / "packages")
        index.refresh()
        machine.ok("update")
        assert machine.read("v") == "2"
        machine.ok("remove", "a")
        assert machine.tree() == {}
    finally:
        server.close()
        thread.join()


def test_interrupted_download_is_continued_by_the_next_install(
    machine: Machine, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = os.urandom(200_000).hex()
    package = machine.goo("a", contents={"f": content})
    url = serve(machine, origin, package)
    body = package.read_bytes()
    origin.page(f"/packages/{package.name}", Reply(body, cut_after=len(body) // 2))
    monkeypatch.setattr("googet.transport.TRIES", 1)
    machine.fails("install", "-sources", url, "a")
    assert machine.installed() == {}
    origin.visits.clear()
    origin.file(f"/packages/{package.name}", body)
    machine.ok("install", "a")
    (visit,) = [one for one in origin.visits if one.path.endswith(".goo")]
    assert visit.range is not None and visit.range != "bytes=0-"
    assert machine.read("f") == content


def test_checksum_mismatch_leaves_no_file(machine: Machine, origin: Origin) -> None:
    package = machine.goo("a")
    serve(machine, origin, package)
    origin.file(f"/packages/{package.name}", b"something else")
    assert "checksum" in machine.fails("install", "a").err
    assert machine.cached() == []


def test_fresh_index_is_not_asked_for_again(machine: Machine, origin: Origin) -> None:
    serve(machine, origin, machine.goo("a"))
    (machine.root / "googet.conf").write_text("allowunsafeurl: true\ncachelife: 10m\n")
    machine.ok("available")
    asked = len(origin.visits)
    assert asked > 0
    machine.ok("available")
    assert len(origin.visits) == asked


def test_status_of_a_failing_server_is_told(machine: Machine, origin: Origin) -> None:
    package = machine.goo("a")
    serve(machine, origin, package)
    origin.page(f"/packages/{package.name}", Reply(b"gone", 410))
    assert "410" in machine.fails("install", "a").err


def test_http_is_never_contacted_without_leave(machine: Machine, origin: Origin) -> None:
    url = serve(machine, origin, machine.goo("a"))
    machine.configure("")
    machine.fails("available")
    machine.fails("install", "-sources", url, "a")
    assert origin.visits == []


def test_download_shows_no_progress_where_nobody_looks(machine: Machine, origin: Origin) -> None:
    serve(machine, origin, machine.goo("a"))
    result = machine.ok("install", "a")
    assert "\r" not in result.out + result.err
