"""The run of one event: look up its scripts, run them one after the other, tell how they went.

Reads metadata, ``[MetadataScripts]`` of the configuration and what ``-url`` keys name; writes to
standard output (see ``output``), a private directory for each script (see ``system.scratch``) and
the result file (see ``result``). A script that fails is a line in the log and never the failure of
the runner. Every start runs the scripts: that packages do not start the units is the business of
the units and of the maintainer scripts.

Messages have a fixed form that users and tools search for; source: guest-agent
``google_metadata_script_runner/main.go``.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from google_guest.errors import GuestError
from google_guest.records import record
from google_guest.scripts.events import Event, is_url_key
from google_guest.scripts.output import Console, rendered
from google_guest.version import version

if TYPE_CHECKING:
    from google_guest.config import MetadataScriptsSection
    from google_guest.metadata.client import MetadataClient
    from google_guest.scripts.lookup import Script
    from google_guest.scripts.platforms import Platform, Scratch
    from google_guest.scripts.result import ResultFile
    from google_guest.system import System
    from google_guest.system.children import Ending

EXIT_DONE, EXIT_FAILED = 0, 1

_SIGNAL_WORDS: Mapping[str, str] = {
    "SIGHUP": "hangup",
    "SIGINT": "interrupt",
    "SIGQUIT": "quit",
    "SIGILL": "illegal instruction",
    "SIGTRAP": "trace/breakpoint trap",
    "SIGABRT": "aborted",
    "SIGBUS": "bus error",
    "SIGFPE": "floating point exception",
    "SIGKILL": "killed",
    "SIGUSR1": "user defined signal 1",
    "SIGSEGV": "segmentation fault",
    "SIGUSR2": "user defined signal 2",
    "SIGPIPE": "broken pipe",
    "SIGALRM": "alarm clock",
    "SIGTERM": "terminated",
}


@record
class Run:
    """What one run of an event works with."""

    event: Event
    system: System
    settings: MetadataScriptsSection
    console: Console
    environment: Mapping[str, str]
    """With which the runner was started; scripts get a copy."""
    client: MetadataClient
    platform: Platform
    """How this operating system keeps and starts a script."""

    def perform(self) -> int:
        """Run the event's scripts and return the exit status of the runner."""
        name = self.event.name
        self.console.info(f"Starting {name} scripts (version {version()}).")
        if not getattr(self.settings, self.event.setting):
            self.console.info(
                f"{self.event.disabled_prefix}{name} scripts disabled in instance config"
            )
            return EXIT_DONE
        from google_guest.metadata.errors import MetadataError
        from google_guest.scripts.lookup import find_scripts
        from google_guest.scripts.result import INTERRUPTED, ResultFile
        from google_guest.system.children import Stopped

        results = ResultFile(self.system, name, self.console)
        try:
            scripts = find_scripts(self.client, self.event, self.console)
            self.platform.remove_leftovers()
            if not scripts:
                self.console.info(f"No {name} scripts to run.")
                results.close()
                return EXIT_DONE
            for script in scripts:
                self.console.info(f"Found {script.key} in metadata.")
                self._perform_one(script, results)
        except MetadataError as error:
            self.console.warning(f"Cannot read {name} scripts from metadata: {error}")
            results.close(error=str(error))
            return EXIT_FAILED
        except Stopped:
            results.close(INTERRUPTED)
            raise
        results.close()
        self.console.info(f"Finished running {name} scripts.")
        return EXIT_DONE

    def _perform_one(self, script: Script, results: ResultFile) -> None:
        from google_guest.scripts.result import publish

        results.begin(script.key)
        began = time.monotonic()
        outcome = self._outcome(script)
        result = results.end(**outcome, seconds=round(time.monotonic() - began, 3))
        if result.error is not None:
            self.console.warning(f'Script "{script.key}" failed with error: {result.error}')
        if result.exit_status is not None:
            self.console.info(f"{script.key} exit status {result.exit_status}")
        if self.settings.report_exit_status:
            timeout = self.event.patience.report_request
            publish(result, results.boot_id, self.client, self.console, timeout=timeout)

    def _outcome(self, script: Script) -> dict[str, Any]:
        """Run one script; return the fields of ``ScriptResult`` that tell how it ended."""
        from google_guest.scripts.launch import NotStarted
        from google_guest.scripts.result import signal_name

        try:
            with self.platform.make_scratch() as scratch:
                path = self._write(script, scratch)
                ending = self.platform.execute(script.key, path)
        except NotStarted as error:
            self.console.write(_output_line(script.key, str(error)))
            return {
                "exit_status": error.exit_status,
                "error": f"exit status {error.exit_status}",
            }
        except GuestError as error:
            return {"error": str(error)}
        except OSError as error:
            # The path would be that of a directory which is gone by now.
            return {"error": error.strerror or str(error)}
        if ending.signal is not None:
            return {"signal": signal_name(ending.signal), "error": ending_text(ending)}
        return {
            "exit_status": ending.exit_status,
            "error": None if ending.exit_status == 0 else ending_text(ending),
        }

    def _write(self, script: Script, scratch: Scratch) -> str:
        """Put the script into a file and return its path."""
        if not is_url_key(script.key):
            return self.platform.write_inline(script, scratch)
        path = self._download(script, scratch)
        return self.platform.accept_download(script, scratch, path)

    def _download(self, script: Script, scratch: Scratch) -> str:
        # Only here: these load urllib3 and ssl.
        from google_guest.scripts.download import Download, DownloadLimits, within
        from google_guest.scripts.sources import ScriptFetcher

        patience = self.event.patience
        waiting = True

        def say(line: str) -> None:
            # A download that was given up has nothing more to say.
            if waiting:
                self.console.warning(f"{script.key}: {line}")

        limits = DownloadLimits(patience.download_total, patience.name_lookups, patience.name_pause)
        download = Download(limits, environment=self.environment, say=say)
        fetcher = ScriptFetcher(self.client, download, patience, say)
        try:
            return within(limits.total, lambda: fetcher.fetch(script.value, scratch, script.key))
        finally:
            waiting = False


def ending_text(ending: Ending) -> str:
    """Return how a script ended, in the words of the reference."""
    if ending.signal is None:
        return f"exit status {ending.exit_status}"
    from google_guest.scripts.result import signal_name

    word = _SIGNAL_WORDS.get(signal_name(ending.signal), f"signal {ending.signal}")
    return f"signal: {word}{' (core dumped)' if ending.core_dumped else ''}"


def _output_line(key: str, text: str) -> bytes:
    return rendered(f"{key}: {text}".encode("utf-8", "backslashreplace")) + b"\n"
