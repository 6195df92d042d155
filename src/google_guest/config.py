"""Layered configuration: ``instance_configs.cfg``.

Layers, weakest first: built-in values, the file named by ``$GUEST_AGENT_EXTRA_CONFIG``,
``instance_configs.cfg.distro``, ``instance_configs.cfg``, ``instance_configs.cfg.template``. The
syntax is that of INI files as the reference reads them (guest-agent: google_guest_agent/cfg): names
of sections and keys ignore case (and here also ``-`` against ``_``), ``=`` or ``:`` separates,
``#`` and ``;`` start comments, the last duplicate wins, quotes around a value are dropped.

A wrong value keeps the one of the layer below, a file with a syntax error is skipped as a whole and
an unknown key is ignored; each is one entry in :attr:`Config.problems`. Nothing is ever written.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Optional

from google_guest.booleans import parse_boolean
from google_guest.records import as_dict, field, record
from google_guest.system.files import Files

BUILT_IN = "built-in"
EXTRA_CONFIG_VARIABLE = "GUEST_AGENT_EXTRA_CONFIG"
_LIMIT = 1 << 20


class Duration(float):
    """A length of time in seconds, written ``10s``, ``1m30s`` or ``500ms``."""


class Section:
    """The keys of one section: annotated fields hold the built-in values."""

    def items(self) -> Iterator[tuple[str, Any]]:
        """Yield every key with its value, in the order of the class."""
        yield from as_dict(self).items()

    @classmethod
    def kinds(cls) -> dict[str, str]:
        """Return the type of each key: ``bool``, ``int``, ``str`` or ``Duration``."""
        return {
            name: str(kind).replace("Optional[", "").rstrip("]")
            for name, kind in cls.__annotations__.items()
        }


@record
class CoreSection(Section):
    """[Core]: logging."""

    cloud_logging_enabled: bool = True
    log_level: int = 3
    log_verbosity: int = 0
    log_file: str = ""


@record
class AccountsSection(Section):
    """[Accounts]: commands and groups for users from metadata."""

    deprovision_remove: bool = False
    useradd_cmd: str = "useradd -m -s /bin/bash -p * {user}"
    userdel_cmd: str = "userdel -r {user}"
    groupadd_cmd: str = "groupadd {group}"
    gpasswd_add_cmd: str = "gpasswd -a {user} {group}"
    gpasswd_remove_cmd: str = "gpasswd -d {user} {group}"
    usermod_cmd: str = ""
    groups: str = "adm,dip,docker,lxd,plugdev,video"
    reuse_homedir: bool = False
    deny_users: str = ""
    write_expiry_option: bool = False
    keys_via_command: bool = False


@record
class DaemonsSection(Section):
    """[Daemons]: one switch for each area."""

    accounts_daemon: bool = True
    network_daemon: bool = True
    clock_skew_daemon: bool = False
    oslogin_daemon: bool = True


@record
class IpForwardingSection(Section):
    """[IpForwarding]: which addresses become local routes."""

    ethernet_proto_id: str = "66"
    ip_aliases: bool = True
    target_instance_ips: bool = True
    forwarded_ips: bool = True


@record
class InstanceSection(Section):
    """[Instance]: where the identifier of the instance is remembered."""

    instance_id: str = "0"
    instance_id_dir: str = "/etc/google_instance_id"


@record
class InstanceSetupSection(Section):
    """[InstanceSetup]: first boot and start-up actions."""

    host_key_dir: str = "/etc/ssh"
    host_key_types: str = "ecdsa,ed25519,rsa"
    network_enabled: bool = True
    optimize_local_ssd: bool = True
    set_multiqueue: bool = True
    set_boto_config: bool = True
    set_host_keys: bool = True
    set_io_scheduler: bool = True
    set_overcommit: bool = True


@record
class MetadataScriptsSection(Section):
    """[MetadataScripts]: the script runner."""

    default_shell: str = "/bin/bash"
    run_dir: str = ""
    startup: bool = True
    shutdown: bool = True
    startup_windows: bool = True
    shutdown_windows: bool = True
    sysprep_specialize: bool = True
    report_exit_status: bool = False


@record
class NetworkInterfacesSection(Section):
    """[NetworkInterfaces]: local routes, and the configuration of further interfaces."""

    setup: bool = True
    ip_forwarding: bool = True
    dhcp_command: str = ""
    manage_primary_nic: bool = False
    vlan_setup_enabled: bool = False
    restore_debian12_netplan_config: bool = True


@record
class OsLoginSection(Section):
    """[OSLogin]: OS Login."""

    cert_authentication: bool = True
    userdb_provider: str = "auto"
    """``auto``, ``true`` or ``false``."""


@record
class MdsSection(Section):
    """[MDS]: credentials for metadata over HTTPS."""

    disable_https_mds_setup: bool = False
    enable_https_mds_native_cert_store: bool = False


@record
class RoutesSection(Section):
    """[Routes]: the periodic pass over local routes."""

    enable_monitor: bool = False
    monitor_interval: Duration = Duration(10)


@record
class SnapshotsSection(Section):
    """[Snapshots]: scripts around snapshots."""

    enabled: bool = False
    snapshot_service_ip: str = "169.254.169.254"
    snapshot_service_port: int = 8081
    timeout_in_seconds: int = 60


@record
class PluginConfigSection(Section):
    """[PluginConfig]: of this section of the reference only the state directory has a meaning."""

    state_dir: str = "/var/lib/google-guest-agent"


@record
class MwlidSection(Section):
    """[MWLID]: managed workload identities."""

    enabled: bool = False
    credential_refresh_minutes: int = 10
    service_ip: str = "169.254.169.254"
    service_port: int = 8083
    private_key_mode: str = "0644"


@record
class UnstableSection(Section):
    """[Unstable]: the command monitor and the host name module of the reference."""

    command_monitor_enabled: bool = False
    command_pipe_path: str = ""
    command_pipe_mode: str = "0770"
    command_pipe_group: str = ""
    command_request_timeout: Duration = Duration(10)
    systemd_config_dir: str = "/usr/lib/systemd/network"
    set_hostname: bool = False
    set_fqdn: bool = False
    fqdn_as_hostname: bool = False
    additional_aliases: str = ""
    fqdn_address_interface_index: int = 0


@record
class ManagerSection(Section):
    """[accountManager], [addressManager]: their presence decides, so there is no default."""

    disable: Optional[bool] = None


@record
class DiagnosticsSection(Section):
    """[diagnostics]: absent by default."""

    enable: Optional[bool] = None


@record
class WsfcSection(Section):
    """[wsfc]: failover clusters; absent by default."""

    enable: Optional[bool] = None
    addresses: str = ""
    port: str = ""


@record
class Problem:
    """Something in a file that was ignored."""

    path: str
    text: str
    is_error: bool = False

    def __str__(self) -> str:
        return f"{self.path}: {self.text}"


@record
class Config:
    """The settings in force. ``origin`` tells for each key which layer set it."""

    core: CoreSection = CoreSection()
    accounts: AccountsSection = AccountsSection()
    daemons: DaemonsSection = DaemonsSection()
    ip_forwarding: IpForwardingSection = IpForwardingSection()
    instance: InstanceSection = InstanceSection()
    instance_setup: InstanceSetupSection = InstanceSetupSection()
    metadata_scripts: MetadataScriptsSection = MetadataScriptsSection()
    network_interfaces: NetworkInterfacesSection = NetworkInterfacesSection()
    os_login: OsLoginSection = OsLoginSection()
    mds: MdsSection = MdsSection()
    routes: RoutesSection = RoutesSection()
    snapshots: SnapshotsSection = SnapshotsSection()
    plugin_config: PluginConfigSection = PluginConfigSection()
    mwlid: MwlidSection = MwlidSection()
    unstable: UnstableSection = UnstableSection()
    account_manager: ManagerSection = ManagerSection()
    address_manager: ManagerSection = ManagerSection()
    diagnostics: DiagnosticsSection = DiagnosticsSection()
    wsfc: WsfcSection = WsfcSection()
    origins: Mapping[tuple[str, str], str] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()

    def origin(self, section: str, key: str) -> str:
        """Return ``built-in`` or the path of the file that set ``section.key`` (field names)."""
        return self.origins.get((section, key), BUILT_IN)

    def settings(self) -> tuple[Setting, ...]:
        """Return every key with its value and layer, in the order of the sections."""
        rows = []
        for attribute, title in SECTION_TITLES.items():
            section = getattr(self, attribute)
            for name, value in section.items():
                rows.append(Setting(title, name, value, self.origin(attribute, name)))
        return tuple(rows)


@record
class Setting:
    """One key in force, for people."""

    section: str
    key: str
    value: object
    origin: str

    @property
    def text(self) -> str:
        """The value as it would be written in a file."""
        if self.value is None:
            return ""
        if isinstance(self.value, bool):
            return "true" if self.value else "false"
        if isinstance(self.value, Duration):
            return f"{self.value:g}s"
        return str(self.value)


SECTION_TITLES: dict[str, str] = {
    "core": "Core",
    "accounts": "Accounts",
    "daemons": "Daemons",
    "ip_forwarding": "IpForwarding",
    "instance": "Instance",
    "instance_setup": "InstanceSetup",
    "metadata_scripts": "MetadataScripts",
    "network_interfaces": "NetworkInterfaces",
    "os_login": "OSLogin",
    "mds": "MDS",
    "routes": "Routes",
    "snapshots": "Snapshots",
    "plugin_config": "PluginConfig",
    "mwlid": "MWLID",
    "unstable": "Unstable",
    "account_manager": "accountManager",
    "address_manager": "addressManager",
    "diagnostics": "diagnostics",
    "wsfc": "wsfc",
}
"""Attribute of :class:`Config` to the section's name in a file."""

_WITHOUT_EFFECT = frozenset(
    {
        ("core", "on_demand_plugins"),
        ("core", "acs_client"),
        ("core", "enable_local_plugins"),
        ("daemons", "ip_forwarding_daemon"),
        ("networkinterfaces", "dhclient_script"),
        ("pluginconfig", "socket_connections_dir"),
        ("pluginconfig", "local_plugin_dir"),
        ("pluginconfig", "connection_type"),
    }
)
_PRESENCE_DECIDES = ("account_manager", "address_manager")
"""Sections that say ``disable = false`` by being there, whatever metadata says."""
_SECTIONS_WITHOUT_EFFECT = frozenset({"telemetry", "acs"})
"""Keys of the references that have no meaning here and are accepted in silence."""

_ATTRIBUTE_OF = {title.lower(): attribute for attribute, title in SECTION_TITLES.items()}
_COMMENT = re.compile(r"(?:^|\s)[#;]")
_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|us|s|m|h)")
_UNIT_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def load_config(
    files: Files,
    *,
    environ: Optional[Mapping[str, str]] = None,
    path: Optional[str] = None,
) -> Config:
    """Read every layer below the root of ``files``; never raises.

    ``environ`` defaults to the process environment and only serves ``$GUEST_AGENT_EXTRA_CONFIG``.
    ``path`` is the administrator's file, by default where the platform has it.
    """
    environment = os.environ if environ is None else environ
    path = path or files.places.config
    extra = environment.get(EXTRA_CONFIG_VARIABLE, "")
    layers = [extra] if extra else []
    layers += [f"{path}.distro", path, f"{path}.template"]
    values: dict[tuple[str, str], Any] = {}
    origins: dict[tuple[str, str], str] = {}
    problems: list[Problem] = []
    present: dict[str, str] = {}
    for layer in layers:
        for section, key, text in _read_layer(files, layer, problems):
            attribute = _ATTRIBUTE_OF.get(section.strip().lower(), "")
            if attribute in _PRESENCE_DECIDES:
                present[attribute] = layer
            if key is not None:
                _take(layer, section, key, text, values=values, origins=origins, problems=problems)
    for attribute, layer in present.items():
        if (attribute, "disable") not in values:
            values[attribute, "disable"], origins[attribute, "disable"] = False, layer
    sections = {}
    for attribute in SECTION_TITLES:
        chosen = {key: value for (name, key), value in values.items() if name == attribute}
        sections[attribute] = type(getattr(_DEFAULTS, attribute))(**chosen)
    return Config(**sections, origins=origins, problems=tuple(problems))


def parse_duration(text: str) -> Optional[Duration]:
    """Return the length of time that ``text`` spells (``1m30s``), or None if it spells none."""
    text = text.strip().lower()
    position = 0
    seconds = 0.0
    for match in _DURATION_PART.finditer(text):
        if match.start() != position:
            return None
        seconds += float(match[1]) * _UNIT_SECONDS[match[2]]
        position = match.end()
    return Duration(seconds) if position and position == len(text) else None


def _read_layer(
    files: Files, path: str, problems: list[Problem]
) -> Sequence[tuple[str, Optional[str], str]]:
    """Return section, key and value of each line; an empty section has no key."""
    try:
        text = files.read_text(path, limit=_LIMIT)
    except OSError as error:
        problems.append(Problem(path, f"cannot be read: {error.strerror}", is_error=True))
        return ()
    if text is None:
        return ()
    # Most machines have no file, and then the parser need not be loaded.
    import configparser

    parser = configparser.ConfigParser(
        strict=False,
        interpolation=None,
        delimiters=("=", ":"),
        comment_prefixes=("#", ";"),
        empty_lines_in_values=False,
        default_section="\0",
    )
    try:
        parser.read_string(text.replace("\0", ""), path)
    except configparser.Error as error:
        first_line = str(error).splitlines()[0]
        problems.append(Problem(path, f"skipped, syntax error: {first_line}", is_error=True))
        return ()
    rows: list[tuple[str, Optional[str], str]] = []
    for section in parser.sections():
        rows += [(section, key, _value(value)) for key, value in parser.items(section)]
        if not parser.options(section):
            rows.append((section, None, ""))
    return rows


def _take(
    path: str,
    section: str,
    key: str,
    text: str,
    *,
    values: dict[tuple[str, str], Any],
    origins: dict[tuple[str, str], str],
    problems: list[Problem],
) -> None:
    name = section.strip().lower()
    field_name = key.strip().lower().replace("-", "_")
    if name in _SECTIONS_WITHOUT_EFFECT or (name, field_name) in _WITHOUT_EFFECT:
        return
    attribute = _ATTRIBUTE_OF.get(name)
    known = {} if attribute is None else getattr(_DEFAULTS, attribute).kinds()
    if attribute is None or field_name not in known:
        problems.append(Problem(path, f"unknown key [{section}] {key} is ignored"))
        return
    value = _typed(text, known[field_name])
    if value is None:
        problems.append(
            Problem(
                path,
                f"[{section}] {key} = {text[:60]!r} is no {_KIND[known[field_name]]};"
                " the value of the layer below stays in force",
            )
        )
        return
    values[attribute, field_name] = value
    origins[attribute, field_name] = path


_KIND = {"bool": "boolean", "int": "number", "str": "text", "Duration": "duration such as 10s"}


def _typed(text: str, kind: str) -> Any:
    if kind == "bool":
        return parse_boolean(text)
    if kind == "int":
        return int(text) if re.fullmatch(r"[+-]?[0-9]{1,9}", text) else None
    if kind == "Duration":
        return parse_duration(text)
    return text


def _value(text: str) -> str:
    """Return ``text`` without the quotes around it, or without the comment behind it."""
    text = text.strip()
    if text and text[0] in "\"'`":
        end = text.find(text[0], 1)
        if end > 0 and (end == len(text) - 1 or text[end + 1 :].lstrip()[:1] in ("#", ";")):
            return text[1:end]
    return _COMMENT.split(text, maxsplit=1)[0].strip()


_DEFAULTS = Config()
