"""Telemetry: which agent on which operating system, once at each start and then once a day.

Reads: ``os-release`` and uname(2), or what Windows has instead (``windows_release``), and the
agent's version. Sends one request to the metadata server with
two headers, each a base64 protobuf message, and nothing else; the answer does not matter. Changes
nothing on the machine but its note of when it reported
(``telemetry.json`` in the run folder).

Off if ``disable-guest-telemetry`` is true at the instance or at the project.

Source of names and field numbers: google-guest-agent ``cmd/core_plugin/telemetry/telemetry.go``,
``internal/acp/proto``; encoding: protobuf.dev, "Encoding".
"""

from __future__ import annotations

from google_guest.changes.reports import SendTelemetry
from google_guest.features import Decision, Feature, Inputs, Plan
from google_guest.metadata.tree import Metadata
from google_guest.os_release import OsRelease, read_os_release
from google_guest.run_memory import run_still_lives
from google_guest.state import read_state
from google_guest.system import System
from google_guest.system.kernel import KernelFacts, kernel_facts
from google_guest.version import version

AGENT_HEADER = "X-Google-Guest-Agent"
OS_HEADER = "X-Google-Guest-OS"
AGENT_NAME = "GCEGuestAgent"
INTERVAL = 24 * 3600.0
MEMORY = "telemetry.json"
SWITCH = "disable-guest-telemetry"

_LONGEST_VALUE = 256
"""In characters: a header has its limits."""
_MACHINES = {"x86_64": "amd64", "x64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
"""Machine names to those that the header of the agent uses."""


def enabled(inputs: Inputs) -> Decision:
    """On unless metadata or the configuration says otherwise."""
    if not inputs.config.instance_setup.network_enabled:
        layer = inputs.config.origin("instance_setup", "network_enabled")
        return Decision(False, "[InstanceSetup] network_enabled = false", layer)
    level = None if inputs.metadata is None else inputs.metadata.either(SWITCH)
    if level is not None:
        return Decision(False, f"{SWITCH} is true", level)
    return Decision(True, "on by default")


def inputs_of(metadata: Metadata) -> bool:
    """Return whether telemetry is off."""
    return metadata.either(SWITCH) is not None


def plan(inputs: Inputs) -> Plan:
    """Return a report if this run of the agent has sent none for a day."""
    path = inputs.system.places.in_run(MEMORY)
    memory = read_state(inputs.system, path) or {}
    sent = memory.get("sent")
    if isinstance(sent, (int, float)) and run_still_lives(inputs.system, memory):
        due = sent + INTERVAL
        # A moment in the future was noted before the clock was set back.
        if sent <= inputs.now < due:
            return Plan(recheck_at=due)
    release, kernel = _facts(inputs.system)
    agent, system = agent_fields(kernel), system_fields(release, kernel)
    headers = {AGENT_HEADER: header_value(agent), OS_HEADER: header_value(system)}
    shown = tuple(value for value in (*agent, *system) if value)
    change = SendTelemetry(headers, shown, path, inputs.now)
    return Plan((change,), recheck_at=inputs.now + INTERVAL)


def _facts(system: System) -> tuple[OsRelease, KernelFacts]:
    if system.is_windows:
        from google_guest.windows_release import windows_kernel, windows_os_release

        return windows_os_release(system.windows), windows_kernel(system.windows)
    return read_os_release(system.files), kernel_facts()


def agent_fields(kernel: KernelFacts) -> tuple[str, ...]:
    """Return the values of fields 1, 2, ... of the agent's message."""
    return (AGENT_NAME, version(), _MACHINES.get(kernel.machine, kernel.machine))


def system_fields(release: OsRelease, kernel: KernelFacts) -> tuple[str, ...]:
    """Return the values of fields 2, 3, ... of the operating system's message; 1 is unused."""
    return (
        "",
        kernel.system,
        release.id,
        release.pretty_name,
        release.version_id,
        kernel.machine,
        kernel.release,
        kernel.version,
    )


def header_value(fields: tuple[str, ...]) -> str:
    """Return ``fields`` as a base64 protobuf message; field numbers count from 1."""
    # Only here: one report a day does not need the module in memory at start.
    from base64 import b64encode

    return b64encode(encode_texts(fields)).decode("ascii")


def encode_texts(fields: tuple[str, ...]) -> bytes:
    """Return a protobuf message of string fields numbered from 1; empty ones are left out."""
    message = b""
    for number, text in enumerate(fields, start=1):
        data = text[:_LONGEST_VALUE].encode("utf-8", "replace")
        if data:
            length_delimited = 2
            message += _varint(number << 3 | length_delimited) + _varint(len(data)) + data
    return message


def _varint(number: int) -> bytes:
    """Return the base-128 form: seven bits a byte, least significant first."""
    encoded = bytearray()
    while number >= 0x80:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


FEATURE = Feature(
    name="telemetry",
    summary="report the versions of agent and operating system once a day",
    enabled=enabled,
    plan=plan,
    inputs_of=inputs_of,
    retry_first=300.0,
    retry_last=3600.0,
    live_only=True,
)
