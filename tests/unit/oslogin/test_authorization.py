"""Decisions about logins: what the server's answers and failures do to the files and to the log."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Optional

import pytest

from google_guest.errors import GuestError
from oslogin.authorization import Authorizer, Reason, Verdict
from oslogin.grants import Grants
from oslogin.identities import Profile, User

ALICE = Profile(User("alice", 2000, 2000, "/home/alice", "/bin/bash"), "alice@example.com")


class Server:
    """Answers as set; None is an outage."""

    def __init__(self) -> None:
        self.profile: Optional[Profile] = ALICE
        self.answers: dict[str, object] = {"login": True, "adminLogin": True}
        self.reachable = True
        self.asked: list[tuple[str, str]] = []

    def user_by_name(
        self, name: str, *, security_keys: bool = False, deadline: float
    ) -> Optional[Profile]:
        self.asked.append(("user", name))
        if not self.reachable:
            raise GuestError("no answer")
        return self.profile

    def is_authorized(
        self, email: str, policy: str, *, fingerprint: str = "", deadline: float
    ) -> bool:
        self.asked.append((policy, fingerprint))
        answer = self.answers[policy]
        if answer is None:
            raise GuestError("status 503")
        return answer  # type: ignore[return-value]


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def grants(tmp_path: Path) -> Grants:
    return Grants(users=str(tmp_path / "users"), sudoers=(str(tmp_path / "sudoers"),))


@pytest.fixture
def authorizer(server: Server, grants: Grants) -> Authorizer:
    return Authorizer(server, grants)


def test_an_administrator_gets_both_files(authorizer: Authorizer, grants: Grants) -> None:
    decision = authorizer.authorize("alice")
    assert (decision.verdict, decision.is_admin) == (Verdict.ALLOWED, True)
    assert grants.is_admitted("alice") and grants.has_sudo("alice")


def test_a_denied_login_removes_both_files(
    authorizer: Authorizer, server: Server, grants: Grants
) -> None:
    authorizer.authorize("alice")
    server.answers["login"] = False
    decision = authorizer.authorize("alice")
    assert (decision.verdict, decision.reason) == (Verdict.DENIED, Reason.POLICY)
    assert not grants.is_admitted("alice") and not grants.has_sudo("alice")


def test_a_no_to_administration_removes_sudo_alone(
    authorizer: Authorizer, server: Server, grants: Grants
) -> None:
    authorizer.authorize("alice")
    server.answers["adminLogin"] = False
    assert authorizer.authorize("alice").is_allowed
    assert grants.is_admitted("alice") and not grants.has_sudo("alice")


def test_an_outage_of_the_second_question_keeps_sudo(
    authorizer: Authorizer, server: Server, grants: Grants
) -> None:
    authorizer.authorize("alice")
    server.answers["adminLogin"] = None
    assert authorizer.authorize("alice").is_allowed
    assert grants.has_sudo("alice")


def test_an_outage_gives_no_sudo_to_who_had_none(
    authorizer: Authorizer, server: Server, grants: Grants
) -> None:
    server.answers["adminLogin"] = None
    assert authorizer.authorize("alice").is_allowed
    assert not grants.has_sudo("alice")


@pytest.mark.parametrize("stage", ["user", "login"])
def test_an_outage_lets_nobody_in_and_removes_nothing(
    authorizer: Authorizer, server: Server, grants: Grants, stage: str
) -> None:
    authorizer.authorize("alice")
    if stage == "user":
        server.reachable = False
    else:
        server.answers["login"] = None
    decision = authorizer.authorize("alice")
    assert (decision.verdict, decision.reason) == (Verdict.UNAVAILABLE, Reason.METADATA)
    assert grants.is_admitted("alice") and grants.has_sudo("alice")


@pytest.mark.parametrize(
    ("answer", "verdict"), [(False, Verdict.DENIED), (None, Verdict.UNAVAILABLE)]
)
def test_required_administration_is_not_assumed(
    authorizer: Authorizer, server: Server, answer: Optional[bool], verdict: Verdict
) -> None:
    server.answers["adminLogin"] = answer
    assert authorizer.authorize("alice", admin_required=True).verdict is verdict


@pytest.mark.parametrize("answer", ["true", 1, {}, [True]])
def test_only_true_is_a_yes(authorizer: Authorizer, server: Server, answer: object) -> None:
    server.answers["login"] = answer
    assert authorizer.authorize("alice").verdict is Verdict.DENIED


def test_an_unknown_user_is_none_of_ours(authorizer: Authorizer, server: Server) -> None:
    server.profile = None
    decision = authorizer.authorize("alice")
    assert (decision.verdict, decision.reason) == (Verdict.UNKNOWN_USER, Reason.UNKNOWN_USER)


def test_an_answer_about_somebody_else_lets_nobody_in(authorizer: Authorizer) -> None:
    assert authorizer.authorize("bob").verdict is Verdict.DENIED


def test_a_profile_without_address_is_denied(authorizer: Authorizer, server: Server) -> None:
    server.profile = Profile(ALICE.user, "")
    decision = authorizer.authorize("alice")
    assert (decision.verdict, decision.reason) == (Verdict.DENIED, Reason.METADATA)


@pytest.mark.parametrize("name", ["", "../../etc/shadow", "-x", "a\nb", "..", "x" * 33, "a b"])
def test_a_bad_name_is_never_asked_for(authorizer: Authorizer, server: Server, name: str) -> None:
    decision = authorizer.authorize(name)
    assert (decision.verdict, decision.reason) == (Verdict.UNKNOWN_USER, Reason.BAD_NAME)
    assert server.asked == []


def test_a_disk_that_takes_no_users_file_denies(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    users = str(tmp_path / "file" / "users")
    authorizer = Authorizer(server, Grants(users=users, sudoers=(str(tmp_path / "s"),)))
    decision = authorizer.authorize("alice")
    assert (decision.verdict, decision.reason) == (Verdict.DENIED, Reason.DISK)


def test_a_sudoers_file_that_cannot_be_written_does_not_keep_the_user_out(
    server: Server, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    sudoers = (str(tmp_path / "file" / "s"),)
    authorizer = Authorizer(server, Grants(users=str(tmp_path / "u"), sudoers=sudoers))
    assert authorizer.authorize("alice").is_allowed


def test_the_fingerprint_goes_to_both_policies(authorizer: Authorizer, server: Server) -> None:
    authorizer.authorize("alice", fingerprint="abc")
    assert server.asked[1:] == [("login", "abc"), ("adminLogin", "abc")]


def test_nothing_is_remembered(authorizer: Authorizer, server: Server) -> None:
    authorizer.authorize("alice")
    count = len(server.asked)
    authorizer.authorize("alice")
    assert len(server.asked) == 2 * count


def test_cloud_run_asks_for_administration_and_writes_nothing(
    authorizer: Authorizer, server: Server, tmp_path: Path
) -> None:
    assert authorizer.authorize_cloud_run("alice", fingerprint="f").is_allowed
    assert server.asked == [("user", "alice"), ("adminLogin", "f")]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"answers": {"login": False, "adminLogin": True}}, "policy"),
        ({"answers": {"login": None, "adminLogin": True}}, "metadata"),
        ({"reachable": False}, "metadata"),
        ({"profile": None}, "unknown-user"),
    ],
)
def test_each_denial_is_one_line_with_its_class(
    authorizer: Authorizer,
    server: Server,
    caplog: pytest.LogCaptureFixture,
    change: dict[str, object],
    word: str,
) -> None:
    for name, value in change.items():
        setattr(server, name, value)
    with caplog.at_level(logging.INFO):
        authorizer.authorize("alice")
    assert len(caplog.messages) == 1
    assert f"denied: {word}" in caplog.messages[0]


def test_a_line_feed_in_a_name_makes_no_second_line(
    authorizer: Authorizer, caplog: pytest.LogCaptureFixture
) -> None:
    authorizer.authorize("a\nlogin of root allowed")
    assert "\n" not in caplog.messages[0]
    assert "bad-name" in caplog.messages[0]
