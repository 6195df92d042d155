"""Units of OS Login: which are started, stopped and restarted, and what is remembered of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from google_guest.changes.oslogin import ControlUnits
from google_guest.features.linux.oslogin import services
from google_guest.system import System
from google_guest.system.commands import Completed


class LiveTree(System):
    """A tree that counts as the running machine."""

    @property
    def is_live(self) -> bool:
        return True


ACTIVE: set[str] = set()


@pytest.fixture
def system(tmp_path: Path) -> System:
    units = tmp_path / "usr/lib/systemd/system"
    units.mkdir(parents=True)
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    for unit in (*services.SOCKETS, services.USERDB_SOCKET, services.PATH_UNIT, services.SERVICE):
        (units / unit).touch()
    ACTIVE.clear()

    def run(argv: Sequence[str], **_: object) -> Completed:
        blocks = []
        for unit in argv[argv.index("--") + 1 :]:
            loaded = "loaded" if (units / unit).exists() else "not-found"
            state = "active" if unit in ACTIVE else "inactive"
            blocks.append(f"Id={unit}\nLoadState={loaded}\nActiveState={state}\n")
        return Completed(tuple(argv), 0, "\n".join(blocks), "")

    return LiveTree(root=tmp_path, runner=run)


def shown(changes: Sequence[object]) -> list[str]:
    return [change.describe() for change in changes if isinstance(change, ControlUnits)]


def add_units(system: System, *names: str) -> None:
    for name in names:
        (system.root / "usr/lib/systemd/system" / name).touch()


def test_sockets_and_path_unit_are_started(system: System) -> None:
    wanted = ", ".join((*services.SOCKETS, services.PATH_UNIT))
    assert shown(services.start(system, userdb=False)) == [f"start {wanted}"]


def test_nothing_is_started_twice(system: System) -> None:
    ACTIVE.update((*services.SOCKETS, services.PATH_UNIT))
    assert services.start(system, userdb=False) == ()


def test_a_running_service_makes_way_for_a_new_socket(system: System) -> None:
    ACTIVE.update((*services.SOCKETS, services.PATH_UNIT, services.SERVICE))
    assert shown(services.start(system, userdb=True)) == [
        f"stop {services.SERVICE}",
        f"start {services.USERDB_SOCKET}",
    ]


def test_the_user_database_follows_its_setting(system: System) -> None:
    ACTIVE.update((*services.SOCKETS, services.PATH_UNIT))
    assert shown(services.start(system, userdb=True)) == [f"start {services.USERDB_SOCKET}"]
    ACTIVE.add(services.USERDB_SOCKET)
    assert shown(services.start(system, userdb=False)) == [f"stop {services.USERDB_SOCKET}"]


def test_what_runs_is_stopped_the_service_last(system: System) -> None:
    ACTIVE.update((services.SERVICE, *services.SOCKETS))
    assert shown(services.stop(system)) == [
        f"stop {', '.join(services.SOCKETS)}, {services.SERVICE}"
    ]


def test_nothing_is_stopped_that_does_not_run(system: System) -> None:
    assert services.stop(system) == ()


def test_only_services_that_exist_are_restarted(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services, "_rereads_nsswitch", lambda: True)
    add_units(system, "ssh.service", "cron.service")
    kinds = frozenset({services.SSHD, services.NAMES})
    assert shown(services.restarts(system, kinds)) == [
        "try-restart cron.service",
        "try-reload-or-restart ssh.service",
    ]


@pytest.mark.parametrize("by_itself", [True, False])
def test_logind_is_restarted_only_for_an_old_c_library(
    system: System, monkeypatch: pytest.MonkeyPatch, by_itself: bool
) -> None:
    monkeypatch.setattr(services, "_rereads_nsswitch", lambda: by_itself)
    add_units(system, "systemd-logind.service")
    found = shown(services.restarts(system, frozenset({services.NAMES})))
    assert ("try-restart systemd-logind.service" in found) is not by_itself


def test_sshd_is_left_alone_when_its_file_did_not_change(system: System) -> None:
    add_units(system, "ssh.service")
    assert not any("ssh" in text for text in shown(services.restarts(system, frozenset({"names"}))))


def test_what_was_not_restarted_is_remembered(system: System) -> None:
    services.note(frozenset({services.SSHD})).apply(system)
    assert services.pending(system) == {services.SSHD}
    for change in services.restarts(system, frozenset({services.SSHD})):
        change.apply(system)
    assert services.pending(system) == frozenset()


@pytest.mark.parametrize("document", [{}, {"pending": 7}, {"pending": ["x", "sshd"]}])
def test_a_strange_memory_is_read_with_care(system: System, document: object) -> None:
    path = system.root / services.MARKER.lstrip("/")
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(document))
    assert services.pending(system) <= {services.SSHD, services.NAMES}


def test_a_tree_has_no_units(tmp_path: Path) -> None:
    tree = System(root=tmp_path)
    assert services.start(tree, userdb=True) == services.stop(tree) == ()
