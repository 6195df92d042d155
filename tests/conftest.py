"""Tiers of tests: markers by folder, what runs, what is skipped and why, the closing table.

A tier that this machine cannot run is skipped with the reason that its `probe()` gives, so any user
can run `pytest` and gets at least the unit tier.  That is a failure instead when
`GUEST_TEST_REQUIRE=TIER,...` names the tier or CI is true.  A required tier in which no test ran is
a failure too.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Optional

import hypothesis
import pytest
from support import cache
from support.commands import CommandFailed, run_command
from support.tiers import TIERS, in_ci, required_tiers, tier_of

# A busy machine is no defect of the code: how long one example takes is left to the benchmarks.
hypothesis.settings.register_profile("project", deadline=None)
hypothesis.settings.load_profile("project")


LONGEST_ID = 60
"""Characters of a parameter that a test's name shows."""


def pytest_make_parametrize_id(val: object) -> Optional[str]:
    """Name tests of endless texts so that a report can still be read."""
    if isinstance(val, (str, bytes)) and len(val) > LONGEST_ID:
        return f"{ascii(val[:20])[:LONGEST_ID]}... ({len(val)})"
    return None


def pytest_runtest_call() -> None:
    """Keep the collector from calling Hypothesis, which counts the time that it takes.

    Where a test has filled the stack, which hostile JSON does, that call fails, and pytest cannot
    write the failure down on such a stack and takes that for a failure of the test.
    """
    gc.callbacks.clear()


class TierPolicy:
    """What this run does with each tier, and what became of its tests."""

    def __init__(self, config: pytest.Config, required: tuple[str, ...]) -> None:
        self.required = required
        self._config = config
        self._problems: dict[str, tuple[str, ...]] = {}
        self._run: Counter[str] = Counter()
        self._skipped: Counter[str] = Counter()
        self._broken: Counter[str] = Counter()
        self._reasons: dict[str, Counter[str]] = {tier: Counter() for tier in TIERS}

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        tier = tier_of(item.path)
        if tier is None:
            return
        if self._is_unavailable(tier):
            if tier in self.required or in_ci():
                pytest.fail(self._unavailable(tier), pytrace=False)
            pytest.skip(self._unavailable(tier))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        tier = tier_of(Path(self._config.rootpath) / report.nodeid.split("::", 1)[0])
        if tier is None:
            return
        if report.skipped:
            self._skipped[tier] += 1
            self._reasons[tier][_skip_reason(report)] += 1
        elif report.when == "call":
            self._run[tier] += 1
        elif report.failed:
            self._broken[tier] += 1

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if session.config.option.collectonly or hasattr(session.config, "workerinput"):
            return
        if self._idle() and session.exitstatus in (
            pytest.ExitCode.OK,
            pytest.ExitCode.NO_TESTS_COLLECTED,
        ):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        seen = [
            tier for tier in TIERS if self._run[tier] + self._skipped[tier] + self._broken[tier]
        ]
        if not seen and not self.required:
            return
        terminalreporter.section("tiers")
        terminalreporter.line(f"{'tier':<10}{'run':>6}{'skipped':>9}  reason")
        for tier in TIERS:
            if tier not in seen and tier not in self.required:
                continue
            reasons = "; ".join(reason for reason, _ in self._reasons[tier].most_common(3))
            if self._is_unavailable(tier):
                reasons = self._unavailable(tier)
            line = f"{tier:<10}{self._run[tier]:>6}{self._skipped[tier]:>9}  {reasons}"
            terminalreporter.line(line.rstrip())
        for tier in self._idle():
            terminalreporter.line(
                f"the {tier} tier is required and none of its tests ran", red=True
            )

    def _idle(self) -> list[str]:
        return [tier for tier in self.required if not self._run[tier]]

    def _is_unavailable(self, tier: str) -> bool:
        if tier not in self._problems:
            self._problems[tier] = tuple(_probe(self._config, tier))
        return bool(self._problems[tier])

    def _unavailable(self, tier: str) -> str:
        return f"the {tier} tier needs " + "; ".join(self._problems[tier])


def pytest_configure(config: pytest.Config) -> None:
    for tier, meaning in TIERS.items():
        config.addinivalue_line("markers", f"{tier}: {meaning}")
    try:
        required = required_tiers()
    except ValueError as wrong:
        raise pytest.UsageError(str(wrong)) from None
    config.pluginmanager.register(TierPolicy(config, required), "tier-policy")


def pytest_itemcollected(item: pytest.Item) -> None:
    tier = tier_of(item.path)
    if tier is not None:
        item.add_marker(tier)


def _probe(config: pytest.Config, tier: str) -> Iterable[str]:
    """What the tier's own conftest.py says is missing."""
    for plugin in config.pluginmanager.get_plugins():
        file: Optional[str] = getattr(plugin, "__file__", None)
        if file and Path(file).name == "conftest.py" and tier_of(Path(file)) == tier:
            probe = getattr(plugin, "probe", None)
            if probe is not None:
                yield from probe()


def _skip_reason(report: pytest.TestReport) -> str:
    if isinstance(report.longrepr, tuple):
        return str(report.longrepr[2]).partition("Skipped: ")[2] or str(report.longrepr[2])
    return str(report.longrepr)


@pytest.fixture(scope="session")
def debian_deb() -> Path:
    """google-guest-agent of Debian 12, from the archive."""

    def download(folder: Path) -> None:
        command = ["sh", "-c", 'cd "$0" && apt-get -qq download google-guest-agent/bookworm']
        run_command([*command, str(folder)], purpose="get Debian's google-guest-agent")

    try:
        entry = cache.artifact("debian-agent", {"suite": "bookworm"}, download)
    except CommandFailed as failure:
        if in_ci():
            pytest.fail(str(failure), pytrace=False)
        pytest.skip(str(failure))
    (deb,) = entry.tree.glob("*.deb")
    return deb
