"""rtnetlink: framing, links, local routes, the monitor and the fallback to ``ip``."""

from __future__ import annotations

import errno
import ipaddress
import json
import os
import socket
import struct
import sys
from collections.abc import Sequence
from typing import Any, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from google_guest.system.commands import CommandError, Completed
from google_guest.system.netlink import (
    EVERYTHING,
    Family,
    IPNetwork,
    Link,
    LocalRoute,
    NetlinkError,
    NetlinkUnavailable,
    Network,
    RouteMonitor,
    destination_text,
    link_with_mac,
    links,
    parse_mac,
    routes,
    wire,
)

MAC = bytes.fromhex("42010a800002")
DONE = wire.message(wire.NLMSG_DONE, 2, struct.pack("=i", 0))


def net(text: str) -> IPNetwork:
    return ipaddress.ip_network(text)


def route(text: str, index: int = 2, protocol: int = 66, metric: int = 0) -> LocalRoute:
    return LocalRoute(net(text), index, protocol, metric)


def error_message(number: int) -> bytes:
    """An NLMSG_ERROR (0: acknowledgement) as the kernel sends it, with a capped request."""
    request = struct.pack("=IHHII", 16, 24, 5, 1, 0)
    return wire.message(wire.NLMSG_ERROR, wire.NLM_F_CAPPED, struct.pack("=i", -number) + request)


def route_message(
    entry: LocalRoute, *, kind: int = routes.RTM_NEWROUTE, route_type: int = 2, table: int = 255
) -> bytes:
    header = struct.pack(
        "=BBBBBBBBI",
        entry.family,
        entry.destination.prefixlen,
        0,
        0,
        table,
        entry.protocol,
        0,
        route_type,
        0,
    )
    payload = header + wire.attribute(15, struct.pack("=I", table))
    payload += wire.attribute(1, entry.destination.network_address.packed)
    if entry.metric:
        payload += wire.attribute(6, struct.pack("=I", entry.metric))
    payload += wire.attribute(4, struct.pack("=i", entry.interface_index))
    return wire.message(kind, 2, payload)


def link_message(index: int, name: str, *, extra: bytes = b"", flags: int = 1) -> bytes:
    payload = struct.pack("=BxHiII", 0, 1, index, flags, 0)
    payload += wire.attribute(3, name.encode() + b"\0") + wire.attribute(1, MAC) + extra
    return wire.message(links.RTM_NEWLINK, 2, payload)


class Kernel:
    """A socket whose other end is a script: each opened socket answers with the next list."""

    def __init__(self, *conversations: Sequence[Any]) -> None:
        self.conversations = list(conversations)
        self.sent: list[wire.Message] = []
        self.pending: list[Any] = []
        self.opened = 0
        self.closed = 0

    def __call__(self, groups: int) -> Kernel:
        self.opened += 1
        self.pending = list(self.conversations.pop(0)) if self.conversations else []
        return self

    def send(self, data: bytes, /) -> int:
        self.sent += wire.split_messages(data)
        return len(data)

    def recvmsg(self, size: int, /) -> tuple[bytes, list[Any], int, Any]:
        if not self.pending:
            raise BlockingIOError(errno.EAGAIN, "nothing")
        answer = self.pending.pop(0)
        if isinstance(answer, OSError):
            raise answer
        if isinstance(answer, tuple):
            return answer
        return answer[:size], [], wire.MSG_TRUNC if len(answer) > size else 0, (0, 0)

    def setsockopt(self, level: int, option: int, value: int, /) -> None:
        raise OSError(errno.ENOPROTOOPT, "as an old kernel")

    def settimeout(self, seconds: Optional[float], /) -> None:
        return None

    def fileno(self) -> int:
        return -1

    def close(self) -> None:
        self.closed += 1


def no_netlink(groups: int) -> wire.RouteSocket:
    raise NetlinkUnavailable(errno.EAFNOSUPPORT, "forbidden")


def network(kernel: Kernel, *, has_ipv6: bool = True) -> Network:
    return Network(open_socket=kernel, sysfs="/nonexistent", has_ipv6=has_ipv6)


# Framing.


@given(st.binary(max_size=200))
def test_arbitrary_bytes_as_messages_raise_nothing_but_a_netlink_error(data: bytes) -> None:
    try:
        for message in wire.split_messages(data):
            wire.error_of(message)
    except NetlinkError as error:
        assert error.errno


@given(st.integers(0, 70), st.integers(0, 0xFFFF), st.binary(max_size=400))
def test_arbitrary_payloads_raise_nothing_but_a_netlink_error(
    kind: int, flags: int, payload: bytes
) -> None:
    message = wire.Message(kind, flags, 1, payload)
    for parse in (
        lambda: wire.error_of(message),
        lambda: links.parse_link(message, sysfs="/nonexistent"),
        lambda: routes.parse_local_route(payload),
        lambda: wire.split_attributes(payload),
    ):
        try:
            parse()
        except NetlinkError as error:
            assert error.errno is not None


@given(st.lists(st.binary(max_size=120), max_size=4))
def test_arbitrary_datagrams_in_a_dump_raise_nothing_but_a_netlink_error(
    datagrams: list[bytes],
) -> None:
    with pytest.raises(NetlinkError):
        network(Kernel(*[datagrams] * 6)).local_routes(Family.IPV4)


@given(st.lists(st.binary(max_size=120), max_size=4))
def test_arbitrary_datagrams_never_break_the_monitor(datagrams: list[bytes]) -> None:
    changed = RouteMonitor(Kernel(datagrams)).drain()
    assert isinstance(changed, frozenset)


@given(st.dictionaries(st.integers(0, 0x3FFF), st.binary(max_size=40), max_size=8))
def test_attributes_survive_packing_and_splitting(attributes: dict[int, bytes]) -> None:
    packed = b"".join(wire.attribute(kind, value) for kind, value in attributes.items())
    assert wire.split_attributes(packed) == attributes


@given(st.lists(st.tuples(st.integers(0, 0xFFFF), st.integers(0, 0xFFFF), st.binary(max_size=60))))
def test_messages_survive_packing_and_splitting(rows: list[tuple[int, int, bytes]]) -> None:
    packed = b""
    for kind, flags, payload in rows:
        packed += wire.message(kind, flags, payload)
        packed += bytes(-len(packed) % 4)
    found = [(m.kind, m.flags, m.payload) for m in wire.split_messages(packed)]
    assert found == rows


def test_the_nested_flag_of_an_attribute_is_no_part_of_its_kind() -> None:
    assert wire.split_attributes(struct.pack("=HH", 4, 0x8000 | 18)) == {18: b""}


def test_a_refusal_carries_errno_and_the_kernels_own_sentence() -> None:
    said = wire.attribute(1, b"Nexthop device is not up\0")
    request = struct.pack("=IHHII", 16, 24, 5, 1, 0)
    payload = struct.pack("=i", -errno.ENETDOWN) + request + said
    flags = wire.NLM_F_CAPPED | wire.NLM_F_ACK_TLVS
    kernel = Kernel([wire.message(wire.NLMSG_ERROR, flags, payload)])
    with pytest.raises(NetlinkError, match="Nexthop device is not up") as caught:
        network(kernel).add_local_route(route("2001:db8::1"))
    assert caught.value.errno == errno.ENETDOWN


def test_the_kernels_sentence_is_found_behind_a_repeated_request() -> None:
    request = wire.message(24, 5, b"x" * 12)
    payload = struct.pack("=i", -errno.EINVAL) + request + wire.attribute(1, b"Invalid scope\0")
    reply = wire.Message(wire.NLMSG_ERROR, wire.NLM_F_ACK_TLVS, 1, payload)
    assert "Invalid scope" in str(wire.error_of(reply))


def test_every_socket_is_closed_again() -> None:
    kernel = Kernel([route_message(route("192.0.2.10")) + DONE], [b"\1"], [])
    network(kernel).local_routes(Family.IPV4)
    for _ in range(2):
        with pytest.raises(NetlinkError):
            network(kernel).local_routes(Family.IPV4)
    assert kernel.opened == kernel.closed == 3


# Listing local routes.


def test_a_dump_in_several_datagrams_is_read_to_its_end() -> None:
    first, second = route("192.0.2.10"), route("10.9.0.0/24", index=3)
    kernel = Kernel([route_message(first), route_message(second), DONE])
    assert network(kernel).local_routes(Family.IPV4) == [first, second]


def test_a_route_keeps_its_metric_and_its_protocol() -> None:
    entry = route("2600:1900:0:1::/96", protocol=2, metric=1024)
    assert network(Kernel([route_message(entry) + DONE])).local_routes(Family.IPV6) == [entry]


@pytest.mark.parametrize(
    "other",
    [
        route_message(route("10.0.0.255"), route_type=3),
        route_message(route("10.0.0.0/20"), table=254),
        route_message(route("2001:db8::1")),
        wire.message(routes.RTM_DELROUTE, 2, b""),
        wire.message(wire.NLMSG_NOOP, 2, b""),
        wire.message(routes.RTM_NEWROUTE, 2, route_message(route("10.0.0.9"))[16:], sequence=7),
    ],
    ids=["broadcast", "other table", "other family", "other kind", "no-op", "other conversation"],
)
def test_what_is_no_local_route_of_the_family_is_left_out(other: bytes) -> None:
    entry = route("192.0.2.10")
    kernel = Kernel([other + route_message(entry) + DONE])
    assert network(kernel).local_routes(Family.IPV4) == [entry]


def test_a_dump_that_the_kernel_calls_inconsistent_is_repeated() -> None:
    entry = route("192.0.2.10")
    interrupted = wire.message(
        routes.RTM_NEWROUTE, 2 | wire.NLM_F_DUMP_INTR, route_message(route("192.0.2.99"))[16:]
    )
    kernel = Kernel([interrupted + DONE], [route_message(entry) + DONE])
    assert network(kernel).local_routes(Family.IPV4) == [entry]


def test_a_dump_that_never_becomes_consistent_is_an_error() -> None:
    done = wire.message(wire.NLMSG_DONE, 2 | wire.NLM_F_DUMP_INTR, struct.pack("=i", 0))
    kernel = Kernel(*[[done]] * 20)
    with pytest.raises(NetlinkError) as caught:
        network(kernel).local_routes(Family.IPV4)
    assert caught.value.errno == errno.EAGAIN
    assert kernel.opened == wire.DUMP_ATTEMPTS


def test_a_dump_larger_than_the_buffer_is_read_with_a_larger_one() -> None:
    entries = [route(f"10.0.{i // 256}.{i % 256}") for i in range(2000)]
    whole = b"".join(map(route_message, entries)) + DONE
    assert len(whole) > wire.FIRST_BUFFER
    assert network(Kernel([whole], [whole])).local_routes(Family.IPV4) == entries


def test_messages_from_another_process_are_ignored() -> None:
    forged: tuple[Any, ...] = (route_message(route("192.0.2.66")) + DONE, [], 0, (4711, 0))
    entry = route("192.0.2.10")
    kernel = Kernel([forged, route_message(entry) + DONE])
    assert network(kernel).local_routes(Family.IPV4) == [entry]


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EAFNOSUPPORT, errno.EOPNOTSUPP])
def test_a_missing_table_or_family_has_no_routes(number: int) -> None:
    assert network(Kernel([error_message(number)])).local_routes(Family.IPV6) == []


def test_a_kernel_without_ipv6_is_not_even_asked() -> None:
    kernel = Kernel()
    quiet = network(kernel, has_ipv6=False)
    assert quiet.families() == (Family.IPV4,)
    assert quiet.local_routes(Family.IPV6) == []
    assert kernel.opened == 0


def test_an_error_at_the_end_of_a_dump_is_raised() -> None:
    done = wire.message(wire.NLMSG_DONE, 2, struct.pack("=i", -errno.ENOMEM))
    with pytest.raises(NetlinkError) as caught:
        network(Kernel([route_message(route("192.0.2.10")) + done])).local_routes(Family.IPV4)
    assert caught.value.errno == errno.ENOMEM


def test_a_silent_kernel_is_an_error_and_no_wait_for_ever() -> None:
    with pytest.raises(NetlinkError) as caught:
        network(Kernel([TimeoutError("timed out")])).local_routes(Family.IPV4)
    assert caught.value.errno == errno.ETIMEDOUT


# Adding and deleting.


def test_a_route_is_added_exclusively_with_the_fields_of_the_reference() -> None:
    kernel = Kernel([error_message(0)])
    network(kernel).add_local_route(route("10.9.0.0/24", index=7))
    (sent,) = kernel.sent
    assert sent.kind == routes.RTM_NEWROUTE
    assert sent.flags == (wire.NLM_F_REQUEST | wire.NLM_F_ACK | wire.NLM_F_CREATE | wire.NLM_F_EXCL)
    assert sent.payload[:12] == bytes([2, 24, 0, 0, 255, 66, 254, 2, 0, 0, 0, 0])
    assert wire.split_attributes(sent.payload[12:]) == {
        1: bytes([10, 9, 0, 0]),
        4: struct.pack("=i", 7),
        15: struct.pack("=I", 255),
    }


def test_an_ipv6_route_has_the_scope_that_the_kernel_reports() -> None:
    kernel = Kernel([error_message(0)])
    network(kernel).add_local_route(route("2600:1900:0:1::/96"))
    assert kernel.sent[0].payload[:8] == bytes([10, 96, 0, 0, 255, 66, 0, 2])


def test_a_route_that_appeared_meanwhile_is_success() -> None:
    entry = route("192.0.2.10")
    present = route_message(route("192.0.2.10", protocol=2)) + DONE
    network(Kernel([error_message(errno.EEXIST)], [present])).add_local_route(entry)


def test_an_ipv4_address_that_is_local_on_another_device_is_appended() -> None:
    elsewhere = route_message(route("192.0.2.10", index=9)) + DONE
    kernel = Kernel([error_message(errno.EEXIST)], [elsewhere], [error_message(0)])
    network(kernel).add_local_route(route("192.0.2.10"))
    assert kernel.sent[-1].kind == routes.RTM_NEWROUTE
    assert kernel.sent[-1].flags & wire.NLM_F_APPEND
    assert not kernel.sent[-1].flags & wire.NLM_F_EXCL


def test_an_ipv6_address_of_another_device_is_an_error() -> None:
    elsewhere = route_message(route("2001:db8::1", index=9, metric=1024)) + DONE
    kernel = Kernel([error_message(errno.EEXIST)], [elsewhere])
    with pytest.raises(NetlinkError) as caught:
        network(kernel).add_local_route(route("2001:db8::1"))
    assert caught.value.errno == errno.EEXIST


def test_deleting_matches_destination_device_protocol_and_host_scope() -> None:
    kernel = Kernel([error_message(0)])
    network(kernel).delete_local_route(route("192.0.2.10", index=7))
    (sent,) = kernel.sent
    assert sent.kind == routes.RTM_DELROUTE
    assert sent.payload[:8] == bytes([2, 32, 0, 0, 255, 66, 254, 2])
    assert wire.split_attributes(sent.payload[12:])[4] == struct.pack("=i", 7)


@pytest.mark.parametrize("number", [errno.ESRCH, errno.ENODEV])
def test_deleting_a_route_that_is_gone_is_success(number: int) -> None:
    network(Kernel([error_message(number)], [DONE])).delete_local_route(route("192.0.2.10"))


def test_a_route_that_cannot_be_found_but_is_listed_is_an_error() -> None:
    listed = route_message(route("192.0.2.10")) + DONE
    with pytest.raises(NetlinkError):
        network(Kernel([error_message(errno.ESRCH)], [listed])).delete_local_route(
            route("192.0.2.10")
        )


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("192.0.2.10/32", "192.0.2.10"),
        ("10.9.0.0/24", "10.9.0.0/24"),
        ("2001:DB8:0::1/128", "2001:db8::1"),
        ("2600:1900:0:1::/96", "2600:1900:0:1::/96"),
    ],
)
def test_destinations_are_shown_in_normal_form(text: str, shown: str) -> None:
    assert destination_text(net(text)) == shown


# Links.


def test_a_link_is_read_with_name_address_and_state() -> None:
    extra = wire.attribute(56, b"virtio1\0")
    kernel = Kernel([link_message(3, "eth0", extra=extra) + link_message(2, "x", flags=0) + DONE])
    assert network(kernel).links() == [
        Link(2, "x", MAC, is_up=False, has_ipv6=False),
        Link(3, "eth0", MAC, has_device=True, has_ipv6=False),
    ]


@pytest.mark.parametrize(("disabled", "expected"), [(0, True), (1, False)])
def test_ipv6_can_be_disabled_for_a_single_device(disabled: int, expected: bool) -> None:
    conf = struct.pack("=27i", *[0] * 26, disabled)
    families = wire.attribute(10, wire.attribute(2, conf))
    kernel = Kernel([link_message(3, "eth0", extra=wire.attribute(26, families)) + DONE])
    assert network(kernel).links()[0].has_ipv6 is expected


@pytest.mark.parametrize(("index", "expected"), [("3", True), ("9", False)])
def test_sysfs_names_the_hardware_below_a_device_of_this_namespace(
    tmp_path: os.PathLike[str], index: str, expected: bool
) -> None:
    folder = os.path.join(tmp_path, "class/net/eth0")
    os.makedirs(os.path.join(folder, "device"))
    with open(os.path.join(folder, "ifindex"), "w", encoding="ascii") as stream:
        stream.write(f"{index}\n")
    kernel = Kernel([link_message(3, "eth0") + DONE])
    listed = Network(open_socket=kernel, sysfs=os.fspath(tmp_path)).links()
    assert listed[0].has_device is expected


@pytest.mark.parametrize(
    ("sharing", "winner"),
    [
        ([Link(2, "bond0", MAC, kind="bond"), Link(3, "eth0", MAC, has_device=True)], "eth0"),
        ([Link(2, "br0", MAC, kind="bridge"), Link(3, "eth0", MAC, kind="veth")], "eth0"),
        ([Link(4, "b", MAC), Link(3, "a", MAC)], "a"),
        ([Link(2, "eth1", bytes(6)), Link(3, "eth0", MAC)], "eth0"),
        ([Link(2, "lo", MAC, is_loopback=True)], None),
        ([], None),
    ],
    ids=["hardware", "not stacked", "first created", "other address", "loopback", "none"],
)
def test_among_devices_with_one_address_the_lowest_layer_wins(
    sharing: list[Link], winner: Optional[str]
) -> None:
    found = link_with_mac(sharing, MAC)
    assert (found.name if found else None) == winner


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("42:01:0a:80:00:02", MAC),
        ("42-01-0A-80-00-02", MAC),
        (" 4201.0a80.0002\n", MAC),
        ("42:01-0a:80:00:02", None),
        ("42010a800002", None),
        ("42:01:0a:80:00", None),
        ("", None),
    ],
)
def test_mac_addresses_are_compared_as_bytes(text: str, expected: Optional[bytes]) -> None:
    assert parse_mac(text) == expected


# The monitor.


def address_event(index: int, kind: int = 21) -> bytes:
    return wire.message(kind, 0, struct.pack("=BBBBi", 2, 20, 0, 0, index))


@pytest.mark.parametrize(
    ("datagrams", "expected"),
    [
        ([address_event(3), link_message(4, "eth1")], {3, 4}),
        ([route_message(route("192.0.2.10", index=5), kind=25)], {5}),
        ([route_message(route("10.0.0.0/8", index=5), table=254, route_type=1)], set()),
        ([address_event(3), OSError(errno.ENOBUFS, "lost")], EVERYTHING),
        ([b"nonsense"], EVERYTHING),
        ([(address_event(3), [], wire.MSG_TRUNC, (0, 16))], EVERYTHING),
        ([(address_event(3), [], 0, (4711, 0))], set()),
        ([], set()),
    ],
    ids=["addr, link", "route", "other table", "lost", "nonsense", "truncated", "forged", "none"],
)
def test_the_monitor_names_the_changed_devices(
    datagrams: Sequence[Any], expected: frozenset[int]
) -> None:
    assert RouteMonitor(Kernel(datagrams)).drain() == expected


def test_the_monitor_subscribes_to_all_five_groups() -> None:
    groups = []

    def opened(mask: int) -> Kernel:
        groups.append(mask)
        return Kernel()

    RouteMonitor(opened).close()
    assert groups == [0x1 | 0x10 | 0x40 | 0x100 | 0x400]


def test_a_broken_monitor_says_so() -> None:
    with pytest.raises(NetlinkError):
        RouteMonitor(Kernel([OSError(errno.EBADF, "bad")])).drain()


def test_a_monitor_where_netlink_is_forbidden_says_so() -> None:
    with pytest.raises(NetlinkUnavailable):
        Network(open_socket=no_netlink).open_monitor()


# The program ip instead.


class IpProgram:
    """Answers like ``ip``, or refuses; keeps what it was asked."""

    def __init__(self, answers: dict[str, object], refused: Sequence[str] = ()) -> None:
        self.answers = {
            "ip -j -d link show": [
                {"ifindex": 2, "ifname": "eth0", "address": "42:01:0a:80:00:02", "flags": ["UP"]},
                {"ifindex": 3, "ifname": "v9", "linkinfo": {"info_kind": "vlan"}, "flags": []},
                {},
            ],
            **answers,
        }
        self.refused = list(refused)
        self.asked: list[str] = []

    def __call__(self, argv: Sequence[str], *, timeout: float) -> Completed:
        line = " ".join(argv)
        if line in self.answers:
            return Completed(tuple(argv), 0, json.dumps(self.answers[line]), "")
        self.asked.append(line)
        if any(word in line for word in self.refused):
            raise CommandError(argv, 2, "RTNETLINK answers: File exists")
        return Completed(tuple(argv), 0, "", "")


LIST_IPV4 = "ip -j -N -4 route show table 255"
LIST_IPV6 = "ip -j -N -6 route show table 255"


def by_program(program: IpProgram) -> Network:
    return Network(program, open_socket=no_netlink, sysfs="/nonexistent", has_ipv6=True)


def test_without_netlink_links_come_from_the_program() -> None:
    assert by_program(IpProgram({})).links() == [
        Link(2, "eth0", MAC),
        Link(3, "v9", b"", kind="vlan", is_up=False),
    ]


def test_without_netlink_each_family_is_listed_by_name() -> None:
    program = IpProgram(
        {
            LIST_IPV4: [
                {"type": "2", "dst": "192.0.2.10", "dev": "eth0", "protocol": "66"},
                {"type": "3", "dst": "10.0.0.255", "dev": "eth0", "protocol": "2"},
                {"type": "2", "dst": "10.0.0.1", "dev": "gone", "protocol": "2"},
            ],
            LIST_IPV6: [
                {"type": "local", "dst": "2600::/96", "dev": "eth0", "protocol": 66, "metric": 1024}
            ],
        }
    )
    assert by_program(program).local_routes(Family.IPV4) == [route("192.0.2.10")]
    assert by_program(program).local_routes(Family.IPV6) == [route("2600::/96", metric=1024)]


def test_without_netlink_routes_are_added_and_deleted_by_the_program() -> None:
    program = IpProgram({})
    by_program(program).add_local_route(route("192.0.2.10"))
    by_program(program).delete_local_route(route("2600::/96"))
    assert program.asked == [
        "ip -4 route add to local 192.0.2.10 dev eth0 table 255 proto 66 scope host",
        "ip -6 route delete to local 2600::/96 dev eth0 table 255 proto 66",
    ]


def test_without_netlink_an_address_of_another_device_is_appended() -> None:
    listing: list[object] = [{"type": "2", "dst": "192.0.2.10", "dev": "v9", "protocol": "66"}]
    program = IpProgram({LIST_IPV4: listing}, refused=["route add"])
    by_program(program).add_local_route(route("192.0.2.10"))
    assert program.asked[-1].startswith("ip -4 route append to local 192.0.2.10 dev eth0")


def test_without_netlink_a_route_that_is_gone_is_deleted_already() -> None:
    program = IpProgram({LIST_IPV4: []}, refused=["route delete"])
    by_program(program).delete_local_route(route("192.0.2.10"))
    by_program(program).delete_local_route(route("192.0.2.10", index=77))


@pytest.mark.parametrize(
    "answer", [{}, ["x"], [{"type": "2", "dst": "x", "dev": "eth0"}]], ids=repr
)
def test_an_unexpected_answer_of_the_program_is_an_error(answer: object) -> None:
    with pytest.raises(NetlinkError):
        by_program(IpProgram({LIST_IPV4: answer})).local_routes(Family.IPV4)


# The real kernel, as far as it needs no privilege.


@pytest.fixture
def real_network() -> Network:
    if not sys.platform.startswith("linux"):
        pytest.skip("rtnetlink exists on Linux only")
    try:
        wire.open_route_socket().close()
    except NetlinkUnavailable as error:
        pytest.skip(f"no netlink socket: {error}")
    return Network()


def test_the_kernel_lists_the_loopback_device(real_network: Network) -> None:
    loopback = [link for link in real_network.links() if link.is_loopback]
    assert [(link.name, link.index) for link in loopback] == [("lo", socket.if_nametoindex("lo"))]


def test_the_kernel_lists_its_own_addresses_as_local_routes(real_network: Network) -> None:
    for family in real_network.families():
        for entry in real_network.local_routes(family):
            assert entry.family is family


def test_a_fresh_monitor_is_silent_and_closes(real_network: Network) -> None:
    with real_network.open_monitor() as monitor:
        assert monitor.fileno() >= 0
        assert isinstance(monitor.drain(), frozenset)
