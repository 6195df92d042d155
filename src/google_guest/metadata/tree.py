"""The metadata tree as immutable typed values.

``parse_metadata`` takes the recursive JSON document of the metadata server's root and never fails:
a value of the wrong type, or one that cannot be meant, counts as absent and leaves one line in
``Metadata.problems`` which names the key and never shows the value. Names of the platform's own
keys are matched without regard to case, hyphens and underscores, because the server, its emulators
and the reference agents disagree about them (``driftToken``, ``drift-token``); names of custom
attributes and of service accounts are verbatim.

Custom attributes are left out of ``repr``: scripts and keys do not belong into traces and logs.
Addresses, zone paths and tokens stay text: which of them are usable is the business of the feature
that uses them. MAC addresses are normalised here, since they are what interfaces are found by.

Source: public GCE documentation, "VM metadata"; guest-agent ``google_guest_agent/metadata``,
google-guest-agent ``internal/metadata/unmarshal.go`` for the keys that an agent uses.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from types import MappingProxyType
from typing import Optional, TypeVar

from google_guest.booleans import parse_boolean
from google_guest.metadata.attributes import BOOLEAN_KEYS, Attributes
from google_guest.records import field, record

DEFAULT_UNIVERSE = "googleapis.com"
_LARGEST_ID = 2**64 - 1
_MOST_PROBLEMS = 100
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_PARENT = re.compile(r"network-interfaces/([0-9]{1,4})(?:/|$)")
_CREATED_BY = re.compile(
    r"projects/([^/\s]+)/(zones|regions)/([^/\s]+)/instanceGroupManagers/([^/\s]+)"
)

_T = TypeVar("_T")


@record
class NetworkInterface:
    """One virtual NIC; ``index`` is its position in metadata, 0 is the primary one."""

    index: int
    mac: str
    """Lower case, separated by colons."""
    ip: Optional[str] = None
    mtu: Optional[int] = None
    subnetmask: Optional[str] = None
    gateway: Optional[str] = None
    gateway_ipv6: Optional[str] = None
    network: Optional[str] = None
    ipv6s: tuple[str, ...] = ()
    dns_servers: tuple[str, ...] = ()
    external_ips: tuple[str, ...] = ()
    forwarded_ips: tuple[str, ...] = ()
    forwarded_ipv6s: tuple[str, ...] = ()
    """Usually CIDR, ``2001:db8:f::/96``."""
    target_instance_ips: tuple[str, ...] = ()
    ip_aliases: tuple[str, ...] = ()
    """CIDR or a bare address."""
    dhcpv6_refresh: Optional[str] = None
    """Opaque; present on a NIC with IPv6, a new value asks for a new lease."""


@record
class VlanNetworkInterface:
    """One VLAN sub-interface of a NIC."""

    parent_index: int
    """``NetworkInterface.index`` of the NIC that carries it."""
    vlan: int
    """802.1Q identifier, 1 to 4094."""
    mac: str
    ip: Optional[str] = None
    ipv6s: tuple[str, ...] = ()
    mtu: Optional[int] = None
    gateway: Optional[str] = None
    gateway_ipv6: Optional[str] = None
    dhcpv6_refresh: Optional[str] = None


@record
class ServiceAccount:
    """A service account whose tokens the instance may ask for."""

    name: str
    """The key in metadata: ``default`` or the e-mail address."""
    email: Optional[str] = None
    aliases: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()


@record
class InstanceGroupManager:
    """The managed instance group that made this instance, from attribute ``created-by``."""

    project: str
    name: str
    zone: Optional[str] = None
    region: Optional[str] = None


@record
class Instance:
    """Everything below ``instance/`` that somebody reads."""

    id: Optional[int] = None
    name: Optional[str] = None
    hostname: Optional[str] = None
    zone: Optional[str] = None
    """As sent: ``projects/NUMBER/zones/ZONE``; see ``last_part``."""
    machine_type: Optional[str] = None
    """As sent: ``projects/NUMBER/machineTypes/TYPE``; see ``last_part``."""
    image: Optional[str] = None
    cpu_platform: Optional[str] = None
    tags: tuple[str, ...] = ()
    licenses: tuple[str, ...] = ()
    attributes: Mapping[str, str] = field(default_factory=dict, hash=False, repr=False)
    network_interfaces: tuple[NetworkInterface, ...] = ()
    vlan_network_interfaces: tuple[VlanNetworkInterface, ...] = ()
    service_accounts: tuple[ServiceAccount, ...] = ()
    drift_token: Optional[str] = None
    """Changes when the instance was migrated or resumed."""
    identity_uuid: Optional[str] = None
    """Changes when the instance's service account changed."""
    created_by: Optional[InstanceGroupManager] = None


@record
class Project:
    """Everything below ``project/``."""

    id: Optional[str] = None
    numeric_id: Optional[int] = None
    attributes: Mapping[str, str] = field(default_factory=dict, hash=False, repr=False)


@record
class Metadata:
    """The whole tree at one moment; equal when nothing that anybody reads has changed."""

    instance: Instance = Instance()
    project: Project = Project()
    universe_domain: str = DEFAULT_UNIVERSE
    problems: tuple[str, ...] = ()
    """What was sent but cannot be used: one line each, naming the key, never its value."""

    @cached_property
    def attributes(self) -> Attributes:
        """Custom metadata of both levels."""
        return Attributes(self.instance.attributes, self.project.attributes)

    def switch(self, key: str) -> Optional[tuple[bool, str]]:
        """Return ``Attributes.switch``: the boolean and its level, instance before project."""
        return self.attributes.switch(key)

    def either(self, key: str) -> Optional[str]:
        """Return ``Attributes.either``: the level at which ``key`` is true."""
        return self.attributes.either(key)


def last_part(path: Optional[str]) -> Optional[str]:
    """Return what follows the last slash: the zone, the machine type; None if nothing does."""
    return None if path is None else path.rpartition("/")[2] or None


def parse_metadata(document: object) -> Metadata:
    """Return the typed view of the recursive document; see the module's docstring."""
    problems = _Problems()
    root = _Fields(document, "metadata", problems)
    return Metadata(
        instance=_instance(root.fields("instance")),
        project=_project(root.fields("project")),
        universe_domain=root.fields("universe").text("universe-domain") or DEFAULT_UNIVERSE,
        problems=problems.lines(),
    )


class _Problems:
    """Collects what could not be used, without repeats and within bounds."""

    def __init__(self) -> None:
        self._lines: dict[str, None] = {}
        self._dropped = 0

    def add(self, path: str, complaint: str) -> None:
        line = f"{path} {complaint}; ignored"
        if len(self._lines) < _MOST_PROBLEMS or line in self._lines:
            self._lines[line] = None
        else:
            self._dropped += 1

    def lines(self) -> tuple[str, ...]:
        more = (f"{self._dropped} more problems in metadata",) if self._dropped else ()
        return (*self._lines, *more)


class _Fields:
    """One object of the document: typed access to its fields, complaints about wrong ones."""

    def __init__(self, value: object, path: str, problems: _Problems) -> None:
        self.path = path
        self.problems = problems
        self._values: dict[str, object] = {}
        if isinstance(value, dict):
            for key, item in value.items():
                # Of two spellings of one key the first stands.
                self._values.setdefault(_normalised(str(key)), item)
        elif value is not None:
            self._complain("is not an object")

    def _complain(self, complaint: str, name: str = "") -> None:
        self.problems.add(f"{self.path}/{name}" if name else self.path, complaint)

    def _parsed(
        self, name: str, parse: Callable[[object], Optional[_T]], kind: str
    ) -> Optional[_T]:
        value = self._values.get(_normalised(name))
        if value is None:
            return None
        parsed = parse(value)
        if parsed is None:
            self._complain(f"is not {kind}", name)
        return parsed

    def raw(self, name: str) -> object:
        return self._values.get(_normalised(name))

    def fields(self, name: str) -> _Fields:
        path = name if self.path == "metadata" else f"{self.path}/{name}"
        return _Fields(self.raw(name), path, self.problems)

    def text(self, name: str) -> Optional[str]:
        """Return non-empty text; the server sends empty text for what is not set."""
        return self._parsed(name, _text, "text") or None

    def token(self, name: str) -> Optional[str]:
        """Return opaque text that some senders write as a number."""
        return self._parsed(name, _token, "text or a number") or None

    def number(self, name: str, *, largest: int = _LARGEST_ID) -> Optional[int]:
        def parse(value: object) -> Optional[int]:
            parsed = _number(value)
            return None if parsed is None or parsed > largest else parsed

        return self._parsed(name, parse, f"an integer from 0 to {largest}")

    def texts(self, name: str) -> tuple[str, ...]:
        """Return the texts of an array; one that is no text voids itself alone."""
        return tuple(value for _, value in self._items(name, _text, "text") if value)

    def mac(self, name: str) -> Optional[str]:
        return self._parsed(name, _mac, "a MAC address")

    def items(self, name: str) -> Iterator[tuple[int, _Fields]]:
        """Yield position and fields of every object of an array."""
        for index, value in self._items(name, _object, "an object"):
            yield index, _Fields(value, f"{self.path}/{name}/{index}", self.problems)

    def _items(
        self, name: str, parse: Callable[[object], Optional[_T]], kind: str
    ) -> Iterator[tuple[int, _T]]:
        for index, value in enumerate(self._parsed(name, _array, "an array") or ()):
            parsed = parse(value)
            if parsed is None:
                self._complain(f"is not {kind}", f"{name}/{index}")
            else:
                yield index, parsed

    def entries(self, name: str) -> Iterator[tuple[str, object]]:
        """Yield the members of an object whose keys are names, verbatim."""
        value = self._parsed(name, _object, "an object")
        for key, item in (value or {}).items():
            yield _clean(str(key)), item


def _instance(fields: _Fields) -> Instance:
    attributes = _attributes(fields)
    return Instance(
        id=fields.number("id"),
        name=fields.text("name"),
        hostname=fields.text("hostname"),
        zone=fields.text("zone"),
        machine_type=fields.text("machine-type"),
        image=fields.text("image"),
        cpu_platform=fields.text("cpu-platform"),
        tags=fields.texts("tags"),
        licenses=tuple(
            text for _, item in fields.items("licenses") if (text := item.token("id")) is not None
        ),
        attributes=attributes,
        network_interfaces=tuple(_network_interfaces(fields)),
        vlan_network_interfaces=tuple(_vlan_network_interfaces(fields)),
        service_accounts=tuple(_service_accounts(fields)),
        drift_token=fields.fields("virtual-clock").token("drift-token"),
        identity_uuid=fields.fields("identity-configuration").text("identity-uuid"),
        created_by=_created_by(attributes.get("created-by")),
    )


def _project(fields: _Fields) -> Project:
    return Project(
        id=fields.text("project-id"),
        numeric_id=fields.number("numeric-project-id"),
        attributes=_attributes(fields),
    )


def _network_interfaces(fields: _Fields) -> Iterator[NetworkInterface]:
    for index, nic in fields.items("network-interfaces"):
        mac = nic.mac("mac")
        if mac is None:
            # Nothing else ties the entry to a device.
            fields.problems.add(nic.path, "has no usable MAC address")
            continue
        yield NetworkInterface(
            index=index,
            mac=mac,
            ip=nic.text("ip"),
            mtu=nic.number("mtu", largest=65535),
            subnetmask=nic.text("subnetmask"),
            gateway=nic.text("gateway"),
            gateway_ipv6=nic.text("gateway-ipv6"),
            network=nic.text("network"),
            ipv6s=nic.texts("ipv6s"),
            dns_servers=nic.texts("dns-servers"),
            external_ips=tuple(
                text
                for _, access in nic.items("access-configs")
                if (text := access.text("external-ip")) is not None
            ),
            forwarded_ips=nic.texts("forwarded-ips"),
            forwarded_ipv6s=nic.texts("forwarded-ipv6s"),
            target_instance_ips=nic.texts("target-instance-ips"),
            ip_aliases=nic.texts("ip-aliases"),
            dhcpv6_refresh=nic.token("dhcpv6-refresh"),
        )


def _vlan_network_interfaces(fields: _Fields) -> Iterator[VlanNetworkInterface]:
    parents = fields.fields("vlan-network-interfaces")
    for parent_key, children in fields.entries("vlan-network-interfaces"):
        path = f"{parents.path}/{_shown(parent_key)}"
        if not isinstance(children, dict):
            fields.problems.add(path, "is not an object")
            continue
        for vlan_key, value in children.items():
            vlan_path = f"{path}/{_shown(str(vlan_key))}"
            nic = _Fields(value, vlan_path, fields.problems)
            parent = _PARENT.search(nic.text("parent-interface") or "")
            parent_index = _number(parent.group(1) if parent else parent_key)
            vlan = nic.number("vlan", largest=4094) or _number(_clean(str(vlan_key)))
            mac = nic.mac("mac")
            if parent_index is None or vlan is None or not 1 <= vlan <= 4094 or mac is None:
                fields.problems.add(vlan_path, "has no usable parent, VLAN id or MAC address")
                continue
            yield VlanNetworkInterface(
                parent_index=parent_index,
                vlan=vlan,
                mac=mac,
                ip=nic.text("ip"),
                ipv6s=nic.texts("ipv6"),
                mtu=nic.number("mtu", largest=65535),
                gateway=nic.text("gateway"),
                gateway_ipv6=nic.text("gateway-ipv6"),
                dhcpv6_refresh=nic.token("dhcpv6-refresh"),
            )


def _service_accounts(fields: _Fields) -> Iterator[ServiceAccount]:
    for name, value in fields.entries("service-accounts"):
        account = _Fields(value, f"{fields.path}/service-accounts/{_shown(name)}", fields.problems)
        yield ServiceAccount(
            name=name,
            email=account.text("email"),
            aliases=account.texts("aliases"),
            scopes=account.texts("scopes"),
        )


def _attributes(fields: _Fields) -> Mapping[str, str]:
    values: dict[str, str] = {}
    for key, value in fields.entries("attributes"):
        path = f"{fields.path}/attributes/{_shown(key)}"
        text = _attribute_text(value)
        if text is None:
            fields.problems.add(path, "is not text")
            continue
        values[key] = text
        if key in BOOLEAN_KEYS and text.strip() and parse_boolean(text) is None:
            fields.problems.add(path, "is not a boolean")
    return MappingProxyType(values)


def _created_by(path: Optional[str]) -> Optional[InstanceGroupManager]:
    match = _CREATED_BY.fullmatch(path.strip()) if path else None
    if match is None:
        # Anything may create an instance; only instance groups are of interest.
        return None
    project, kind, location, name = match.groups()
    return InstanceGroupManager(
        project=project,
        name=name,
        zone=location if kind == "zones" else None,
        region=location if kind == "regions" else None,
    )


def _attribute_text(value: object) -> Optional[str]:
    """Return the text of a scalar; JSON's booleans are written as JSON writes them."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return repr(value)
    return _token(value)


def _normalised(key: str) -> str:
    return key.replace("-", "").replace("_", "").lower()


def _array(value: object) -> Optional[list[object]]:
    return value if isinstance(value, list) else None


def _object(value: object) -> Optional[dict[object, object]]:
    return value if isinstance(value, dict) else None


def _text(value: object) -> Optional[str]:
    return _clean(value) if isinstance(value, str) else None


def _clean(text: str) -> str:
    r"""Replace lone surrogates: JSON can carry them (``"\ud800"``), no file or log line can."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def _token(value: object) -> Optional[str]:
    if isinstance(value, int) and not isinstance(value, bool):
        # Numbers beyond any identifier are not worth the quadratic conversion to text.
        return str(value) if value.bit_length() <= 64 else None
    return _text(value)


def _number(value: object) -> Optional[int]:
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value if value >= 0 else None
    if isinstance(value, str):
        digits = value.strip()
        if digits.isascii() and digits.isdigit() and len(digits) <= 20:
            return int(digits)
    return None


def _mac(value: object) -> Optional[str]:
    if not isinstance(value, str):
        return None
    mac = value.strip().lower().replace("-", ":")
    return mac if _MAC.fullmatch(mac) else None


def _shown(name: str) -> str:
    """Return a name from metadata in a form that may be printed: it could be anything."""
    shown = "".join(char if char.isascii() and char.isprintable() else "?" for char in name[:127])
    return shown or '""'
