"""The OS Login endpoints: lookups, pages, policy, certificates, second factors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from urllib.parse import quote

import pytest

from metadata_server import Emulator
from metadata_server.oslogin import CHALLENGE_TYPES

from .conftest import Ask


@pytest.fixture(autouse=True)
def directory(mds: Emulator) -> None:
    mds.set("instance/attributes/enable-oslogin", "TRUE")
    mds.set_oslogin(
        {
            "users": [
                {
                    "username": "ada",
                    "uid": 2001,
                    "gid": 3001,
                    "email": "ada+x@example.com",
                    "home": "/srv/ada",
                    "shell": "/bin/zsh",
                    "keys": [{"key": "ssh-ed25519 AAAA ada", "expires": "1"}, "ssh-rsa BBBB"],
                    "security_keys": ["sk-ssh-ed25519@openssh.com CCCC"],
                    "admin": True,
                    "challenges": [
                        {"type": "TOTP", "credential": "123456"},
                        {"type": "AUTHZEN", "approved": False},
                    ],
                },
                {"username": "bob", "uid": "2002", "fingerprints": ["fp-1"]},
                {"username": "eve", "uid": 2003, "login": False},
                {"username": "odd", "uid": 2004, "profile": {"name": 5}},
            ],
            "groups": [
                {"name": "ops", "gid": 5001, "members": ["ada", "bob", "eve"]},
                {"name": "none", "gid": "5002"},
            ],
            "certificates": ["ssh-ed25519 CA1", "ssh-rsa CA2"],
        }
    )


ADA = {
    "name": "ada+x@example.com",
    "posixAccounts": [
        {
            "primary": True,
            "username": "ada",
            "uid": 2001,
            "gid": 3001,
            "homeDirectory": "/srv/ada",
            "shell": "/bin/zsh",
            "operatingSystemType": "LINUX",
        }
    ],
    "sshPublicKeys": {
        "0" * 64: {"key": "ssh-ed25519 AAAA ada", "expirationTimeUsec": "1"},
        "0" * 63 + "1": {"key": "ssh-rsa BBBB"},
    },
}


def test_user_by_name_and_by_uid(ask: Ask) -> None:
    for query in ("username=ada", "uid=2001"):
        answer = ask(f"oslogin/users?{query}")
        assert answer.headers["content-type"] == "application/json"
        assert answer.json == {"loginProfiles": [ADA]}


def test_security_keys_are_served_on_request(ask: Ask) -> None:
    keys = [{"publicKey": "sk-ssh-ed25519@openssh.com CCCC"}]
    answer = ask("oslogin/users?username=ada&view=securityKey").json
    assert answer == {"loginProfiles": [{**ADA, "securityKeys": keys}]}


def test_numbers_may_be_strings_and_gid_follows_uid(ask: Ask) -> None:
    profile = ask("oslogin/users?uid=2002").json
    assert isinstance(profile, dict)
    account = profile["loginProfiles"][0]["posixAccounts"][0]
    assert (account["uid"], account["gid"]) == ("2002", "2002")


def test_profile_can_be_given_as_it_should_never_be(ask: Ask) -> None:
    assert ask("oslogin/users?username=odd").json == {"loginProfiles": [{"name": 5}]}


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("users?username=nobody", 404),
        ("users?uid=9", 404),
        ("users?username=-x", 400),
        ("users?username=%2A", 400),
        ("users?username=" + "a" * 33, 400),
        ("users?username=", 400),
        ("users?uid=x", 400),
        ("users", 400),
        ("users?pagesize=0", 400),
        ("users?pagesize=x", 400),
        ("users?pagesize=5&pagetoken=nonsense", 400),
        ("users?groupname=nothing", 404),
        ("groups?groupname=nothing", 404),
        ("groups?gid=9", 404),
        ("groups", 400),
        ("authorize", 400),
        ("authorize?email=a&policy=root", 400),
        ("authorize?policy=login", 400),
        ("nothing", 404),
        ("users/ada", 404),
    ],
)
def test_lookups_that_find_nothing_or_make_no_sense(ask: Ask, path: str, status: int) -> None:
    assert ask(f"oslogin/{path}").status == status


def _pages(ask: Ask, path: str) -> list[Mapping[str, object]]:
    pages = []
    token = ""
    while token != "0":
        suffix = f"&pagetoken={quote(token, safe='')}" if token else ""
        page = ask(f"oslogin/{path}{suffix}").json
        assert isinstance(page, dict)
        pages.append(page)
        token = page["nextPageToken"]
        assert len(pages) < 20
    return pages


@pytest.mark.parametrize(("size", "sizes"), [(1, [1, 1, 1, 1]), (3, [3, 1]), (4, [4]), (9, [4])])
def test_last_page_of_users_is_empty(ask: Ask, size: int, sizes: list[int]) -> None:
    *full, last = _pages(ask, f"users?pagesize={size}")
    assert last == {"nextPageToken": "0"}
    profiles = [page["loginProfiles"] for page in full]
    assert [len(page) for page in profiles if isinstance(page, list)] == sizes


@pytest.mark.parametrize(("size", "sizes"), [(1, [1, 1]), (2, [2]), (499, [2])])
def test_last_page_of_groups_carries_entries(ask: Ask, size: int, sizes: list[int]) -> None:
    pages = [page["posixGroups"] for page in _pages(ask, f"groups?pagesize={size}")]
    assert [len(page) for page in pages if isinstance(page, list)] == sizes


def test_last_page_of_members_carries_entries(mds: Emulator, ask: Ask) -> None:
    mds.oslogin.page_size = 2
    pages = _pages(ask, "users?groupname=ops")
    assert [page["usernames"] for page in pages] == [["ada", "bob"], ["eve"]]


def test_plain_tokens_are_digits(mds: Emulator, ask: Ask) -> None:
    mds.oslogin.page_size = 2
    mds.oslogin.plain_tokens = True
    pages = _pages(ask, "users?groupname=ops")
    assert [page["nextPageToken"] for page in pages] == ["2", "0"]


def test_group_without_members_has_no_usernames(ask: Ask) -> None:
    assert ask("oslogin/users?groupname=none").json == {"nextPageToken": "0"}


def test_project_without_groups_has_no_key_for_them(mds: Emulator, ask: Ask) -> None:
    for name in ("ops", "none"):
        mds.oslogin.remove_group(name)
    assert ask("oslogin/groups?pagesize=499").json == {"nextPageToken": "0"}


def test_empty_directory_has_one_empty_page(mds: Emulator, ask: Ask) -> None:
    mds.set_oslogin({})
    assert _pages(ask, "users?pagesize=10") == [{"nextPageToken": "0"}]


@pytest.mark.parametrize("query", ["groupname=ops", "gid=5001", "email=ada%2Bx%40example.com"])
def test_group_by_name_by_gid_and_by_member(ask: Ask, query: str) -> None:
    answer = ask(f"oslogin/groups?{query}").json
    assert answer == {"posixGroups": [{"name": "ops", "gid": 5001}], "nextPageToken": "0"}


@pytest.mark.parametrize(
    ("query", "success"),
    [
        ("email=ada%2Bx@example.com&policy=login", True),
        ("email=ada%2Bx@example.com&policy=adminLogin", True),
        ("email=bob@example.com&policy=login", True),
        ("email=bob@example.com&policy=adminLogin", False),
        ("email=bob@example.com&policy=login&fingerprint=fp-1", True),
        ("email=bob@example.com&policy=login&fingerprint=fp-2", False),
        ("email=eve@example.com&policy=login", False),
        ("email=nobody@example.com&policy=login", False),
    ],
)
def test_policy(ask: Ask, query: str, success: bool) -> None:
    assert ask(f"oslogin/authorize?{query}").json == {"success": success}


def test_certificate_authorities(ask: Ask) -> None:
    assert ask("oslogin/certificates").json == {
        "trustedCertificateAuthorities": [
            {"publicKey": "ssh-ed25519 CA1"},
            {"publicKey": "ssh-rsa CA2"},
        ]
    }


# Off


@pytest.mark.parametrize(
    "path", ["users?username=ada", "users?pagesize=1", "groups?pagesize=1", "certificates", "x"]
)
def test_nothing_is_found_while_oslogin_is_off(mds: Emulator, ask: Ask, path: str) -> None:
    mds.set("instance/attributes/enable-oslogin", "FALSE")
    assert ask(f"oslogin/{path}").status == 404


def test_test_may_overrule_the_attribute(mds: Emulator, ask: Ask) -> None:
    mds.set("instance/attributes/enable-oslogin", "FALSE")
    mds.oslogin.enabled = True
    assert ask("oslogin/users?username=ada").status == 200


def test_requests_need_the_platforms_header(ask: Ask) -> None:
    assert ask("oslogin/users?username=ada", headers={}).status == 403


# Second factors


def _post(ask: Ask, path: str, document: object) -> Mapping[str, object]:
    body = json.dumps(document).encode()
    answer = ask(f"oslogin/authenticate/sessions/{path}", method="POST", body=body)
    assert answer.status == 200, answer.text
    assert isinstance(answer.json, dict)
    return answer.json


def _start(ask: Ask, types: tuple[str, ...] = CHALLENGE_TYPES) -> Mapping[str, object]:
    email = "ada+x@example.com"
    return _post(ask, "start", {"email": email, "supportedChallengeTypes": list(types)})


def _continue(ask: Ask, session: object, challenge: int, **more: object) -> Mapping[str, object]:
    request = {"email": "ada+x@example.com", "challengeId": challenge, **more}
    return _post(ask, f"{session}/continue", request)


def test_session_offers_what_the_user_has_and_the_client_supports(ask: Ask) -> None:
    answer = _start(ask)
    assert answer["challenges"] == [
        {"challengeId": 1, "challengeType": "TOTP", "status": "READY"},
        {"challengeId": 2, "challengeType": "AUTHZEN", "status": "PROPOSED"},
    ]
    only = _start(ask, ("AUTHZEN",))
    assert only["challenges"] == [{"challengeId": 1, "challengeType": "AUTHZEN", "status": "READY"}]


def test_user_without_usable_challenge_gets_none(ask: Ask) -> None:
    assert _start(ask, ("SECURITY_KEY_OTP",)) == {"status": "NO_AVAILABLE_CHALLENGES"}


def test_right_code_authenticates_once(ask: Ask) -> None:
    session = _start(ask)["sessionId"]
    response = {"action": "RESPOND", "proposalResponse": {"credential": "123456"}}
    assert _continue(ask, session, 1, **response)["status"] == "AUTHENTICATED"
    path = f"oslogin/authenticate/sessions/{session}/continue"
    body = json.dumps({"email": "ada+x@example.com", "challengeId": 1, **response}).encode()
    assert ask(path, method="POST", body=body).status == 404


def test_wrong_code_is_rejected_with_a_reason_and_may_be_repeated(ask: Ask) -> None:
    session = _start(ask)["sessionId"]
    wrong = {"action": "RESPOND", "proposalResponse": {"credential": "000000"}}
    right = {"action": "RESPOND", "proposalResponse": {"credential": "123456"}}
    answer = _continue(ask, session, 1, **wrong)
    assert answer["status"] != "AUTHENTICATED"
    assert answer["rejectionReason"]
    assert _continue(ask, session, 1, **right)["status"] == "AUTHENTICATED"


def test_proposed_challenge_must_be_started_first(ask: Ask) -> None:
    session = _start(ask)["sessionId"]
    body = {"email": "ada+x@example.com", "challengeId": 2, "action": "RESPOND"}
    path = f"oslogin/authenticate/sessions/{session}/continue"
    assert ask(path, method="POST", body=json.dumps(body).encode()).status == 400
    started = _continue(ask, session, 2, action="START_ALTERNATE")
    assert isinstance(started["challenges"], list)
    assert [challenge["status"] for challenge in started["challenges"]] == ["PROPOSED", "READY"]
    assert _continue(ask, session, 2, action="RESPOND")["rejectionReason"]


def test_approved_phone_prompt_needs_no_credential(mds: Emulator, ask: Ask) -> None:
    mds.oslogin.add_user("ada", 2001, email="ada+x@example.com", challenges=[{"type": "AUTHZEN"}])
    session = _start(ask)["sessionId"]
    assert _continue(ask, session, 1, action="RESPOND")["status"] == "AUTHENTICATED"


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("start", b"", 400),
        ("start", b"[]", 400),
        ("start", b"[" * 100_000, 400),
        ("start", b'{"email":"ada+x@example.com"}', 400),
        ("start", b'{"email":"nobody@example.com","supportedChallengeTypes":[]}', 404),
        ("unknown/continue", b"{}", 404),
        ("start/more/parts", b"{}", 404),
        ("", b"{}", 404),
    ],
)
def test_unusable_session_requests(ask: Ask, path: str, body: bytes, status: int) -> None:
    url = f"oslogin/authenticate/sessions/{path}"
    assert ask(url, method="POST", body=body).status == status


def test_session_of_another_user_cannot_be_continued(ask: Ask) -> None:
    session = _start(ask)["sessionId"]
    body = {"email": "bob@example.com", "challengeId": 1, "action": "RESPOND"}
    path = f"oslogin/authenticate/sessions/{session}/continue"
    assert ask(path, method="POST", body=json.dumps(body).encode()).status == 400


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "authenticate/sessions/start", "POST"),
        ("POST", "users?username=ada", "GET"),
        ("DELETE", "certificates", "GET"),
    ],
)
def test_wrong_method_names_the_right_one(ask: Ask, method: str, path: str, allow: str) -> None:
    answer = ask(f"oslogin/{path}", method=method)
    assert (answer.status, answer.headers["allow"]) == (405, allow)


@pytest.mark.parametrize(
    "document",
    [
        {"people": []},
        {"users": {}},
        {"users": [{"username": "a", "uid": 1, "colour": "blue"}]},
        {"users": [{"username": "a", "uid": 1, "challenges": ["TOTP"]}]},
        {"page_size": 0},
        {"groups": [{"name": "g", "gid": None}]},
    ],
)
def test_directory_document_with_a_mistake_is_refused(
    mds: Emulator, document: dict[str, object]
) -> None:
    with pytest.raises(ValueError):
        mds.set_oslogin(document)
    assert mds.oslogin.answer("GET", ["users"], {"username": "ada"}, b"")[0] == 200
