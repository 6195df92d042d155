"""A Wine bed: a Windows prefix of its own in namespaces of this host's kernel, for one test.

    with Wine() as wine:
        wine.py("print(6 * 7)").stdout
        wine.service("GCEAgent").start()

As a Linux bed (`bed`) it is an overlay in memory on cached trees (`wine_root`), a network with the
metadata server emulator in it, and a cgroup; its PID 1 (`wine.sh`) only reaps.  Windows lives in a
*session*: the programs of one wineserver, held open by a keeper (`inside_wine/keeper.py`) that also
starts programs for the test and reads their exact exit codes.  Files outlive a session.

At most two processes have beds at once on a host; a third waits until one has none left.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Optional, Union

from support import cache, furnish, sweep, wine_root
from support.commands import CommandFailed, CommandTimeout, Completed, run_command
from support.emulator import Metadata, emulate
from support.guest import BedState, Found, in_cgroup, kill_cgroup
from support.network import Network, enter_namespace, numbered_nics
from support.processes import Child, start_child
from support.terminals import Terminals
from support.wine_session import PYTHON, Session, SessionEnded
from support.wine_windows import Program, Registry, Service

if TYPE_CHECKING:
    from metadata_server import ControlClient

FIRST_PROCESS = Path(__file__).with_name("wine.sh")
SOURCES = r"Z:\tree\src"
PORTS = ("COM1", "COM2", "COM3", "COM4")
PROCESSES = 2

_START_TIMEOUT = 60.0
_PLACE_TIMEOUT = 600.0
_CRASHED = 0xC0000005  # access violation: what a stub of a function often ends in
_STUB = 0x80000100  # EXCEPTION_WINE_STUB
_GAP = re.compile(r"unimplemented function ([\w.-]+?)(?:\.dll)?\.(\w+)", re.IGNORECASE)
_numbers = itertools.count(1)

Argv = Union[str, Sequence[str]]
"""An argument list, or one command line as CreateProcess takes it."""


class WineGap(AssertionError):
    """Code of a test reached a function that Wine does not have: nothing was proved."""


class Wine:
    """A Wine bed that this process owns: it ends when the process ends."""

    def __init__(
        self,
        *,
        metadata: Union[Metadata, bool] = "windows",
        environment: Optional[Mapping[str, str]] = None,
        nics: int = 1,
        macs: Sequence[str] = (),
        counted: bool = True,
    ) -> None:
        """Describe a bed; entering it (or `start`) makes it and opens the first session.

        `metadata`: a document, the name of an emulator profile, True for a plain instance, False
        for no metadata server.  `environment`: of every session, beside PYTHONPATH.  `counted`:
        whether the process waits until it may have beds.
        """
        worker = os.environ.get("PYTEST_XDIST_WORKER")
        name = f"{sweep.PREFIX}wine-{worker + '-' if worker else ''}{os.getpid()}-{next(_numbers)}"
        specification = numbered_nics(nics, macs=macs)
        directory = sweep.BEDS / name
        self.state = BedState(
            name=name,
            directory=str(directory),
            suite="windows",
            owner=os.getpid(),
            owner_started=sweep.process_start(os.getpid()),
            inside=f"{name}-in",
            outside=f"{name}-out",
            cgroup=str(sweep.cgroup_root() / name),
            nics=[asdict(nic) for nic in specification],
            control_socket=str(directory / "mds.sock"),
        )
        self.name = name
        self.directory = directory
        self.nics = specification
        self.registry = Registry(self)
        self._metadata = metadata
        self._counted = counted
        self._environment = {
            "PYTHONPATH": SOURCES,
            "PYTHONPYCACHEPREFIX": r"Z:\bytecode",
            **(environment or {}),
        }
        self._network = Network(name, specification, dhcp=False)
        self._terminals: Optional[Terminals] = None
        self._runner: Optional[Child] = None
        self._children: list[Child] = []
        self._mds: Optional[ControlClient] = None
        self._session: Optional[Session] = None
        self._placed = False
        self._services_of_wine: frozenset[str] = frozenset()
        self._outputs = itertools.count(1)
        self._raised = 0

    def __enter__(self) -> Wine:
        return self.start()

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.close()

    # --- programs ---

    def py(self, code: str, *arguments: str, **how: Any) -> Completed:
        """Run a text in Windows Python, with the project's modules; as `run`.

        Its outputs are UTF-8 with plain line ends.
        """
        script = self._place(code.encode(), ".py")
        environment = {"PYTHONIOENCODING": "utf-8", **(how.pop("environment", None) or {})}
        return self.run([PYTHON, script, *arguments], environment=environment, **how)

    def cmd(self, line: str, **how: Any) -> Completed:
        """Run a line of cmd.exe; as `run`."""
        return self.run(f'cmd.exe /d /s /c "{line}"', **how)

    def run(
        self,
        argv: Argv,
        *,
        check: bool = True,
        timeout: float = 60.0,
        environment: Optional[Mapping[str, Optional[str]]] = None,
        folder: Optional[str] = None,
        input: Optional[str] = None,
    ) -> Completed:
        """Run a program inside Windows to its end; its status is the exact one (0 to 2**32 - 1).

        `environment`: further variables, None removes one.  `folder`: a Windows path.  Raises
        CommandFailed on a status other than 0 when `check` is set, CommandTimeout when its time
        was up (it is then terminated), and WineGap when it met a function that Wine lacks.
        """
        request = self._program(argv, environment, folder, input)
        answer = self.ask("run", limit=timeout + 10, timeout=timeout, **request)
        completed = self.completed(request, answer["code"])
        purpose = f"run a program in Wine bed {self.name}"
        shown = [argv] if isinstance(argv, str) else list(argv)
        if answer["code"] is None:
            raise CommandTimeout(shown, completed, purpose=f"{purpose} in {timeout:g} s")
        self._raise_gaps()
        if completed.status in (_CRASHED, _STUB):
            raise WineGap(
                f"wine gap: {completed.status:#x} in {shown[0]}: {completed.stderr[-2000:]}"
            )
        if check and completed.status != 0:
            raise CommandFailed(shown, completed, purpose=purpose)
        return completed

    def begin(
        self,
        argv: Argv,
        *,
        environment: Optional[Mapping[str, Optional[str]]] = None,
        folder: Optional[str] = None,
    ) -> Program:
        """Start a program inside Windows and go on."""
        request = self._program(argv, environment, folder, None)
        return Program(self, self.ask("start", **request)["pid"], request)

    def linux(self, argv: Sequence[str], **how: Any) -> Completed:
        """Run a Linux program in the bed (wixl, for example), as `run_command` does."""
        return run_command(
            [*in_cgroup(Path(self.state.cgroup)), *self._enter(), *argv],
            purpose=f"run a Linux program in Wine bed {self.name}",
            **how,
        )

    def serve(self, argv: Sequence[str], *, log: str = "server.log") -> Child:
        """Start a program of the host in the network around the bed; it ends with the bed.

        The bed reaches it at `gateway`; what it says is in the bed's folder.
        """
        child = start_child([*enter_namespace(self.state.outside), *argv], log=self.directory / log)
        self._children.append(child)
        return child

    @property
    def gateway(self) -> str:
        """The IPv4 address of the network around the bed."""
        return self.nics[0].gateway

    # --- what tests look at ---

    @property
    def mds(self) -> ControlClient:
        """The control of the metadata server emulator."""
        if self._mds is None:
            raise RuntimeError(f"Wine bed {self.name} has no metadata server")
        return self._mds

    def problems(self) -> list[str]:
        """What makes a passed test worthless: gaps nobody reported, failures of the emulator."""
        failures = [] if self._mds is None else self._mds.failures
        return [*(f"wine gap: {gap}" for gap in self.unreported_gaps()), *failures]

    def path(self, windows_path: str) -> Path:
        """The host's path of a Windows file; its parts are found whatever their case.

        What does not exist is named as it was given.
        """
        drive, _, rest = windows_path.partition(":")
        roots = {"C": "prefix/drive_c", "Z": ""}
        path = self.directory / "m" / roots[drive.upper()]
        for part in filter(None, re.split(r"[\\/]", rest)):
            path = _part(path, part)
        return path

    def write(self, windows_path: str, content: Union[str, bytes]) -> None:
        """Place a file, with its parent folders."""
        target = self.path(windows_path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content.encode() if isinstance(content, str) else content)

    def install_tree(self, source: Path, windows_path: str) -> None:
        """Copy the contents of a host's folder below a folder of Windows."""
        for folder, _, names in os.walk(source):
            inside = Path(folder).relative_to(source)
            target = self.path("\\".join([windows_path, *inside.parts]))
            target.mkdir(parents=True, exist_ok=True)
            for name in names:
                _part(target, name).write_bytes((Path(folder) / name).read_bytes())

    def com(self, port: str) -> str:
        """What was written to a serial port ("COM1") since the bed was made."""
        raw = (self.directory / f"{port.lower()}.log").read_bytes()
        return raw.decode("utf-8", "replace").replace("\r\n", "\n")

    def service(self, name: str) -> Service:
        """A Windows service, whether or not there is one of that name."""
        return Service(self, name)

    def gaps(self) -> tuple[str, ...]:
        """The functions that Wine lacks and that anything in this bed called, as DLL.FUNCTION."""
        log = self.directory / "session.log"
        said = log.read_text(errors="replace") if log.exists() else ""
        return tuple(f"{dll.lower()}.dll.{function}" for dll, function in _GAP.findall(said))

    def unreported_gaps(self) -> tuple[str, ...]:
        """Those gaps that no exception has named yet."""
        return self.gaps()[self._raised :]

    def forget_gaps(self) -> None:
        """Count the gaps so far as met on purpose."""
        self._raised = len(self.gaps())

    def wait_until(
        self, predicate: Any, timeout: float = 10.0, what: str = "the condition holds"
    ) -> Found:
        """Ask `predicate` until its answer is true and return it; TimeoutError names `what`."""
        deadline = time.monotonic() + timeout
        while True:
            found: Found = predicate()
            if found:
                return found
            if time.monotonic() > deadline:
                raise TimeoutError(f"Wine bed {self.name}: not within {timeout:g} s: {what}")
            time.sleep(0.05)

    def evidence(self, directory: Path) -> None:
        """Keep what explains a failure: outputs, serial ports, requests, the registry."""
        directory.mkdir(parents=True, exist_ok=True)
        for file in (*self.directory.glob("*.log"), *self.path(r"Z:\bed").glob("*.*")):
            (directory / file.name).write_bytes(file.read_bytes())
        if self._mds is not None:
            lines = [
                f"{r.time:.3f} {r.client} {r.method} {r.target}\n" for r in self._mds.requests()
            ]
            (directory / "requests.txt").write_text("".join(lines))
        (directory / "processes.txt").write_text(self.linux(["ps", "-efww"], check=False).stdout)
        self.run(["regedit.exe", "/E", r"Z:\bed\registry.reg"], check=False)
        (directory / "registry.reg").write_bytes(self.path(r"Z:\bed\registry.reg").read_bytes())

    # --- life ---

    def start(self) -> Wine:
        """Make the bed and open its first session."""
        lower = [wine_root.template(), wine_root.root()]
        if self._counted:
            _place.enter()
            self._placed = True
        with sweep.registry_lock():
            sweep.sweep()
            self.directory.mkdir()
            furnish.stack_files(self.name, self.directory, lower)
            self.state.write()
        try:
            self._surround()
            self._start_first_process()
            self.open_session()
            self._services_of_wine = frozenset(self.ask("running_services")["names"])
        except BaseException:
            self.close()
            raise
        return self

    def restart_session(self) -> None:
        """End the session as a shutdown would, services first, and open the next."""
        self.end_session()
        self.open_session()

    def open_session(self) -> None:
        """Start the keeper: Windows is up."""
        self._session = Session(
            [*in_cgroup(Path(self.state.cgroup)), *self._enter(self._environment)],
            self.directory / "session.log",
        )

    def end_session(self) -> None:
        """Stop the services that are not Wine's own and end every program."""
        names = self.ask("running_services")["names"]
        for name in names:
            if name not in self._services_of_wine:
                self.service(name).stop()
        assert self._session is not None
        self._session.end()
        self._session = None
        self.linux(["wineserver", "-k"], check=False)
        self.linux(["wineserver", "-w"])

    def close(self) -> None:
        """End everything of this bed and leave nothing on the host."""
        cgroup = Path(self.state.cgroup)
        if cgroup.is_dir():
            kill_cgroup(cgroup)
        if self._session is not None:
            self._session.reap()
            self._session = None
        if self._runner is not None:
            self._runner.kill()
            self._runner.wait()
            self._runner = None
        self._mds = None
        for child in self._children:
            child.kill()
            child.wait()
        self._children.clear()
        if self._terminals is not None:
            self._terminals.close()
            self._terminals = None
        with sweep.registry_lock():
            self._network.remove()
            sweep.remove_remains(self.name)
        if self._placed:
            _place.leave()
            self._placed = False

    def _surround(self) -> None:
        logs = {port: self.directory / f"{port.lower()}.log" for port in PORTS}
        self._terminals = Terminals(logs)
        self._network.create_outside()
        self._network.create_inside()
        if self._metadata is not False:
            child, self._mds = emulate(
                self._network.outside, self.directory, self._metadata, self.nics
            )
            self._children.append(child)
        hosts = self.directory / "m" / "etc" / "hosts"
        hosts.write_text(
            "127.0.0.1 localhost\n::1 localhost\n"
            "169.254.169.254 metadata.google.internal metadata\n"
            f"{self.nics[0].address} windows-bed\n"
        )
        (self.directory / "m" / "etc" / "resolv.conf").write_text("")

    def _start_first_process(self) -> None:
        assert self._terminals is not None
        Path(self.state.cgroup).mkdir()
        command = [
            *in_cgroup(Path(self.state.cgroup)),
            *enter_namespace(self._network.inside),
            *("unshare", "--mount", "--pid", "--fork", "--uts", "--ipc", "--cgroup"),
            *("--kill-child", "--", str(FIRST_PROCESS)),
            str(self.directory / "m"),
            str(wine_root.SOURCES),
            str(wine_root.bytecode()),
            *(self._terminals.device(port) for port in PORTS),
        ]
        log = self.directory / "first-process.log"
        self._runner = start_child(command, log=log)
        deadline = time.monotonic() + _START_TIMEOUT
        while not self._is_ready():
            if self._runner.poll() is not None or time.monotonic() > deadline:
                said = log.read_text(errors="replace").strip()
                raise RuntimeError(f"Wine bed {self.name} did not start: {said[-2000:]}")
            time.sleep(0.005)
        self.state.write()

    def _is_ready(self) -> bool:
        assert self._runner is not None
        pid = self._runner.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if len(children) != 1 or not Path(f"/proc/{children[0]}/root/run/ready").exists():
            return False
        self.state.pid1 = int(children[0])
        return (self.directory / "m" / "bed").is_dir()

    def _enter(self, environment: Optional[Mapping[str, str]] = None) -> list[str]:
        return [
            *("nsenter", "-t", str(self.state.pid1)),
            *("-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w"),
            *("env", "-i", *wine_root.ENVIRONMENT),
            *(f"{name}={value}" for name, value in (environment or {}).items()),
            *("setpriv", f"--bounding-set={wine_root.CAPABILITIES}", "--"),
        ]

    def ask(self, what: str, *, limit: float = 30.0, **fields: Any) -> dict[str, Any]:
        """Let the keeper do something (`keeper.py` has the names); for this package's modules."""
        if self._session is None:
            raise SessionEnded(f"Wine bed {self.name} has no session")
        return self._session.ask({"do": what, **fields}, timeout=limit)

    def _place(self, content: bytes, suffix: str) -> str:
        name = f"{next(self._outputs)}{suffix}"
        self.write(rf"Z:\bed\{name}", content)
        return rf"Z:\bed\{name}"

    def _program(
        self,
        argv: Argv,
        environment: Optional[Mapping[str, Optional[str]]],
        folder: Optional[str],
        input: Optional[str],
    ) -> dict[str, Any]:
        number = next(self._outputs)
        return {
            "argv": argv if isinstance(argv, str) else list(argv),
            "env": dict(environment or {}),
            "cwd": folder or "C:\\",
            "in": self._place(input.encode(), ".in") if input is not None else None,
            "out": rf"Z:\bed\{number}.out",
            "err": rf"Z:\bed\{number}.err",
        }

    def completed(self, request: Mapping[str, Any], code: Optional[int]) -> Completed:
        """What a program has written, with its exit code; for this package's modules."""
        texts = [
            self.path(request[name]).read_bytes().decode("utf-8", "replace").replace("\r\n", "\n")
            for name in ("out", "err")
        ]
        return Completed(texts[0], texts[1], -9 if code is None else code)

    def _raise_gaps(self) -> None:
        new = self.unreported_gaps()
        if new:
            self.forget_gaps()
            raise WineGap("wine gap: " + ", ".join(dict.fromkeys(new)))


@lru_cache(maxsize=1)
def features() -> Mapping[str, str]:
    """What this Wine lacks and how that showed, by the feature's name; empty for what works.

    Tried once, in a bed of its own, and kept in the artifact cache.
    """
    script = wine_root.INSIDE / "features.py"
    facts = {**wine_root.template_facts(), "features": script.read_text()}
    tree = cache.artifact("wine-features", facts, _try_features).tree
    found: dict[str, str] = json.loads((tree / "features.json").read_text())
    return found


def _try_features(tree: Path) -> None:
    with Wine(metadata=False) as bed:
        script = r"Z:\tree\tests\support\inside_wine\features.py"
        with contextlib.suppress(WineGap):
            bed.run([PYTHON, script, r"C:\features.json"], timeout=180)
        (tree / "features.json").write_bytes(bed.path(r"C:\features.json").read_bytes())


def _part(folder: Path, name: str) -> Path:
    """An entry of a folder whatever its case; as given when there is none."""
    exact = folder / name
    if exact.exists() or not folder.is_dir():
        return exact
    for entry in os.listdir(folder):
        if entry.casefold() == name.casefold():
            return folder / entry
    return exact


class _Place:
    """This process's place among the PROCESSES that may have beds, held while it has any."""

    def __init__(self) -> None:
        self._beds = 0
        self._descriptor = -1

    def enter(self) -> None:
        if self._beds == 0:
            self._descriptor = self._take()
        self._beds += 1

    def leave(self) -> None:
        self._beds -= 1
        if self._beds == 0:
            os.close(self._descriptor)

    @staticmethod
    def _take() -> int:
        sweep.BEDS.mkdir(mode=0o755, parents=True, exist_ok=True)
        deadline = time.monotonic() + _PLACE_TIMEOUT
        while True:
            for number in range(PROCESSES):
                path = sweep.BEDS / f".wine-{number}"
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    os.close(descriptor)
                else:
                    return descriptor
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"{PROCESSES} processes have Wine beds already for {_PLACE_TIMEOUT:g} s"
                )
            time.sleep(0.1)


_place = _Place()
