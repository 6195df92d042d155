"""Requests to the OS Login part of the metadata server, and what its answers mean."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from google_guest.metadata.client import MetadataClient
from google_guest.metadata.errors import BadRequest, NotFound, ServerError
from google_guest.metadata.exchange import Response
from metadata_server import Emulator
from oslogin.directory import Breaker, Directory, Disabled, Nobody, Unavailable
from oslogin.pages import BadPage, read_page


class Scripted:
    """A client that gives prepared answers and notes what it was asked."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.now = 0.0

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def request(self, method: str, path: str, **options: Any) -> Response:
        self.asked.append((path, dict(options["query"] or {})))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        return Response(200, {}, body)


def directory(*answers: Any, **options: Any) -> tuple[Directory, Scripted]:
    client = Scripted(*answers)
    return Directory(client, clock=client.clock, **options), client


def profile(name: str, uid: int) -> dict[str, object]:
    return {"name": f"{name}@x", "posixAccounts": [{"username": name, "uid": uid}]}


def users_page(token: object, *names: str) -> dict[str, object]:
    return {
        "loginProfiles": [profile(name, 2000 + n) for n, name in enumerate(names)],
        "nextPageToken": token,
    }


@pytest.fixture
def mds() -> Iterator[Emulator]:
    with Emulator(profile="linux") as emulator:
        emulator.oslogin.enabled = True
        yield emulator


@pytest.fixture
def live(mds: Emulator) -> Iterator[Directory]:
    with MetadataClient(mds.host, environ={}, redirects=0, connect_timeout=1.0) as client:
        yield Directory(client)


def soon() -> float:
    return time.monotonic() + 4.0


def test_three_full_pages_and_the_end_give_everybody(live: Directory, mds: Emulator) -> None:
    users = [{"username": f"u{n}", "uid": 10000 + n} for n in range(3 * 2048)]
    mds.oslogin.load({"enabled": True, "users": users})
    assert len(list(live.all_users())) == 3 * 2048
    assert len(mds.requests("oslogin/users")) == 4


def test_all_groups_have_their_members(live: Directory, mds: Emulator) -> None:
    for number in range(3):
        mds.oslogin.add_user(f"u{number}", 20000 + number)
    mds.oslogin.add_group("one", 30000, ["u0", "u1"])
    mds.oslogin.add_group("empty", 30001)
    mds.oslogin.page_size = 1
    assert [(group.name, group.members) for group in live.all_groups()] == [
        ("one", ("u0", "u1")),
        ("empty", ()),
    ]
    assert [group.name for group in live.groups_of("u1@example.com", deadline=soon())] == ["one"]


def test_values_are_percent_encoded() -> None:
    with Emulator(profile="linux") as mds:
        mds.oslogin.enabled = True
        mds.oslogin.add_user("ada", 20001, email="a b&c/d+e@x", admin=True)
        with MetadataClient(mds.host, environ={}) as client:
            found = Directory(client).is_authorized(
                "a b&c/d+e@x", "adminLogin", fingerprint="f/1 2", deadline=soon()
            )
            assert found
            target = mds.requests("oslogin/authorize")[0].target
    assert "email=a%20b%26c%2Fd%2Be%40x" in target
    assert "fingerprint=f%2F1%202" in target


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "all_proxy"])
def test_no_proxy_is_asked(
    monkeypatch: pytest.MonkeyPatch, mds: Emulator, live: Directory, variable: str
) -> None:
    monkeypatch.setenv(variable, "http://127.0.0.1:9")
    mds.oslogin.add_user("ada", 20001)
    assert live.user_by_name("ada", deadline=soon()) is not None


def test_redirect_is_no_answer(mds: Emulator, live: Directory) -> None:
    mds.fault("oslogin/", "redirect_loop")
    with pytest.raises(Unavailable):
        live.user_by_name("ada", deadline=soon())
    assert len(mds.requests("oslogin/")) == 1


@pytest.mark.parametrize(
    "fault", [{"kind": "html"}, {"kind": "html", "flavor": False}, {"kind": "no_flavor"}]
)
def test_answer_of_somebody_else_is_none(
    mds: Emulator, live: Directory, fault: dict[str, Any]
) -> None:
    mds.oslogin.add_user("ada", 20001)
    mds.fault("oslogin/", **fault)
    with pytest.raises(Unavailable):
        live.user_by_name("ada", deadline=time.monotonic() + 0.5)


@pytest.mark.parametrize(
    ("error", "status"), [(NotFound("no"), 404), (BadRequest("no"), 400)], ids=["404", "400"]
)
def test_no_is_not_asked_again(error: Exception, status: int) -> None:
    found, client = directory(error)
    assert found.find_user(name="ada", deadline=4.5) == Nobody(status)
    assert len(client.asked) == 1


def test_failing_server_is_asked_again_after_a_fifth_of_a_second() -> None:
    found, client = directory(ServerError("503"), ServerError("503"), profile("ada", 2000))
    assert found.user_by_name("ada", deadline=4.5) is not None
    assert client.now == pytest.approx(0.4)


def test_time_ends_the_attempts() -> None:
    found, client = directory(*[ServerError("503")] * 100)
    with pytest.raises(Unavailable):
        found.user_by_name("ada", deadline=4.5)
    assert client.now <= 4.5


def test_answer_about_another_user_tells_nothing_about_this_one() -> None:
    found, _ = directory({"loginProfiles": [profile("eve", 2000)]})
    assert found.find_user(name="ada", deadline=4.5) == Nobody(0)


@pytest.mark.parametrize("body", [b"", b"junk", b"[]", b"7", b"\xff", b"[" * 100_000])
def test_garbage_is_unavailable(body: bytes) -> None:
    found, _ = directory(body)
    with pytest.raises(Unavailable):
        found.user_by_name("ada", deadline=4.5)


@pytest.mark.parametrize("success", ["true", "false", 1, "x", {}, [1], None, False])
def test_only_true_is_a_yes(success: object) -> None:
    assert not directory({"success": success})[0].is_authorized("a@x", "login", deadline=4.5)


def test_true_is_a_yes() -> None:
    assert directory({"success": True})[0].is_authorized("a@x", "login", deadline=4.5)


def test_off_is_told_by_the_first_page() -> None:
    with pytest.raises(Disabled):
        list(directory(NotFound("404"))[0].all_users())


def test_refused_second_page_is_not_off() -> None:
    with pytest.raises(Unavailable):
        list(directory(users_page("next", "ada"), NotFound("404"))[0].all_users())


@pytest.mark.parametrize(
    "page",
    [
        users_page(None, "bob"),
        users_page("", "bob"),
        users_page(7, "bob"),
        {"loginProfiles": [profile("bob", 2001)]},
        users_page("further"),
        {"nextPageToken": "further"},
        users_page("again", "bob"),
        {"loginProfiles": {}, "nextPageToken": "0"},
        users_page("0", *[f"u{number}" for number in range(2049)]),
        [],
        b'{"nextPageToken":"0"} x',
    ],
    ids=range(11),
)
def test_page_that_cannot_be_is_an_error(page: object) -> None:
    with pytest.raises(Unavailable):
        list(directory(users_page("again", "ada"), page)[0].all_users())


@pytest.mark.parametrize("end", [{"nextPageToken": "0"}, users_page("0")])
def test_users_end_with_an_empty_page(end: object) -> None:
    users = directory(users_page("next", "ada"), end)[0].all_users()
    assert [user.name for user in users] == ["ada"]


def test_last_page_of_groups_has_entries() -> None:
    page = {"posixGroups": [{"name": "g", "gid": "3000"}], "nextPageToken": "0"}
    members = {"usernames": ["ada", "a:b", None], "nextPageToken": "0"}
    found = list(directory(page, members)[0].all_groups())
    assert [(group.name, group.gid, group.members) for group in found] == [("g", 3000, ("ada",))]


def test_groups_that_are_not_in_use_are_none() -> None:
    assert list(directory({"nextPageToken": "0"})[0].all_groups()) == []


def test_bad_entries_of_a_page_are_left_out() -> None:
    page = {
        "loginProfiles": [profile("a:b", 2000), None, profile("x\ny", 2001), profile("ada", 2002)],
        "nextPageToken": "next",
    }
    users = directory(page, {"nextPageToken": "0"})[0].all_users()
    assert [user.name for user in users] == ["ada"]


def test_page_is_tried_four_times() -> None:
    found, client = directory(*[ServerError("503")] * 3, {"nextPageToken": "0"})
    assert list(found.all_users()) == []
    assert len(client.asked) == 4
    with pytest.raises(Unavailable):
        list(directory(*[ServerError("503")] * 4)[0].all_users())


def test_breaker_asks_nobody_for_ten_seconds_and_then_once() -> None:
    now = [0.0]
    breaker = Breaker(clock=lambda: now[0])
    breaker.check()
    breaker.failed()
    breaker.check()
    breaker.failed()
    for now[0] in (0.0, 9.9):
        with pytest.raises(Unavailable):
            breaker.check()
    now[0] = 10.0
    breaker.check()
    with pytest.raises(Unavailable):
        breaker.check()
    breaker.answered()
    breaker.check()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.text() | st.sampled_from(["list", "nextPageToken"]), json_values))
def test_page_is_read_like_json(document: dict[str, object]) -> None:
    body = json.dumps(document, indent=1).encode()
    entries = document.get("list", [])
    if not isinstance(entries, list):
        with pytest.raises(BadPage):
            read_page(body, "list", lambda entry: (entry,))
        return
    found, count, token = read_page(body, "list", lambda entry: (entry,))
    assert [entry for (entry,) in found] == entries
    assert count == (len(entries) if "list" in document else None)
    assert token == document.get("nextPageToken")


@given(st.binary() | st.text(alphabet='{}[]":, \\u0019-.eE').map(str.encode))
def test_any_bytes_are_a_page_or_refused(body: bytes) -> None:
    try:
        read_page(body, "list", lambda entry: entry)
    except BadPage:
        with pytest.raises((ValueError, TypeError, AssertionError)):
            assert isinstance(json.loads(body.decode()), dict)
