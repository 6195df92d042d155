"""What the service answers: permissions, paths, forms, headers, computed values."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import time

import pytest

from metadata_server import Emulator, tokens

from .conftest import Ask, ask_host

# Permission


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Metadata-Flavor": "google"},
        {"Metadata-Flavor": ""},
        {"X-Google-Metadata-Request": "False"},
        {"Metadata-Flavor": "Google", "X-Forwarded-For": "192.0.2.1"},
        {"Metadata-Flavor": "Google", "x-forwarded-for": ""},
    ],
)
def test_request_that_may_not_come_from_the_guest_is_refused(
    ask: Ask, headers: dict[str, str]
) -> None:
    answer = ask("instance/id", headers=headers)
    assert (answer.status, answer.headers["metadata-flavor"]) == (403, "Google")


def test_refusal_names_the_missing_header(ask: Ask) -> None:
    answer = ask("instance/id", headers={})
    assert "Missing Metadata-Flavor:Google header." in answer.text
    assert answer.headers["content-type"].startswith("text/html")


@pytest.mark.parametrize("value", ["True", "true"])
def test_historic_request_header_is_accepted(ask: Ask, value: str) -> None:
    assert ask("instance/id", headers={"X-Google-Metadata-Request": value}).status == 200


@pytest.mark.parametrize(
    ("path", "body"), [("/", "computeMetadata/\n"), ("/computeMetadata/", "v1/\n")]
)
def test_roots_need_no_header(ask: Ask, path: str, body: str) -> None:
    answer = ask(path, headers={})
    assert (answer.status, answer.text) == (200, body)


# Paths


@pytest.mark.parametrize(
    "path",
    [
        "instance/nothing",
        "nothing/",
        "instance/disks/1/",
        "instance/id/",
        "instance/id/below",
        "instance/networkInterfaces/",
        "instance/credentials/mds-client-certificate",
        "/computeMetadata/v1beta1/instance/id",
        "/0.1/meta-data/",
        "/elsewhere",
    ],
)
def test_unknown_path_is_not_found(ask: Ask, path: str) -> None:
    assert ask(path).status == 404


@pytest.mark.parametrize(
    ("path", "location"),
    [
        ("instance/attributes", "/computeMetadata/v1/instance/attributes/"),
        ("instance", "/computeMetadata/v1/instance/"),
        (
            "instance/disks?recursive=true&alt=text",
            "/computeMetadata/v1/instance/disks/?recursive=true&alt=text",
        ),
        ("/computeMetadata/v1", "/computeMetadata/v1/"),
        ("/computeMetadata", "/computeMetadata/"),
    ],
)
def test_directory_without_slash_redirects_and_keeps_the_query(
    ask: Ask, path: str, location: str
) -> None:
    answer = ask(path)
    assert (answer.status, answer.headers["location"]) == (301, location)


@pytest.mark.parametrize(
    "path",
    [
        "instance//id",
        "/computeMetadata/v1//instance/id",
        "/computeMetadata//v1//instance/id",
        "instance/%69d",
    ],
)
def test_spellings_of_one_path_give_one_answer(ask: Ask, path: str) -> None:
    assert ask(path).text == "9007199254740993123"


def test_absolute_request_target_is_understood(mds: Emulator, ask: Ask) -> None:
    assert ask("/", headers={}).status == 200
    connection = http.client.HTTPConnection(mds.host, timeout=10)
    connection.putrequest("GET", f"{mds.url}instance/name", skip_host=True)
    connection.putheader("Host", "metadata.google.internal")
    connection.putheader("Metadata-Flavor", "Google")
    connection.endheaders()
    assert connection.getresponse().read() == b"demo-1"
    connection.close()


@pytest.mark.parametrize("path", ["instance/%zz", "instance/id?alt=%4", "instance/%"])
def test_broken_percent_encoding_is_a_bad_request(ask: Ask, path: str) -> None:
    assert ask(path).status == 400


# Methods


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "instance/id"),
        ("PUT", "instance/attributes/x"),
        ("DELETE", "instance/attributes/ssh-keys"),
        ("HEAD", "instance/id"),
        ("PATCH", ""),
        ("PUT", "instance/guest-attributes/only-namespace"),
        ("PUT", "instance/guest-attributes/a/b/c"),
        ("POST", "instance/guest-attributes/a/b"),
        ("POST", "/"),
    ],
)
def test_wrong_method_is_refused(ask: Ask, method: str, path: str) -> None:
    answer = ask(path, method=method, body=b"x" if method != "HEAD" else None)
    assert answer.status == 405
    assert answer.headers["allow"].startswith("GET")


# Forms


@pytest.mark.parametrize(
    ("path", "content_type", "body"),
    [
        ("instance/name", "application/text", b"demo-1"),
        ("instance/name?alt=json", "application/json", b'"demo-1"'),
        ("instance/id?alt=json", "application/json", b"9007199254740993123"),
        ("instance/description", "application/text", b""),
        ("instance/preempted", "application/text", b"FALSE"),
        ("instance/tags", "application/json", b'["web"]'),
        ("instance/tags?alt=text", "application/text", b"web"),
        ("instance/disks/", "application/text", b"0/\n"),
        ("instance/disks/?recursive=TRUE", "application/json", None),
        (
            "instance/scheduling/?recursive=true&alt=text",
            "application/text",
            b"automatic-restart TRUE\non-host-maintenance MIGRATE\npreemptible FALSE\n",
        ),
        (
            "instance/service-accounts/default/",
            "application/text",
            b"aliases\nemail\nidentity\nscopes\ntoken\n",
        ),
        (
            "instance/attributes/",
            "application/text",
            b"created-by\nenable-guest-attributes\nenable-oslogin\nssh-keys\nstartup-script\n",
        ),
        ("", "application/text", b"instance/\noslogin/\nproject/\nuniverse/\n"),
    ],
)
def test_form_of_an_answer(ask: Ask, path: str, content_type: str, body: bytes) -> None:
    answer = ask(path)
    assert (answer.status, answer.headers["content-type"]) == (200, content_type)
    if body is not None:
        assert answer.body == body


def test_recursive_text_of_disks_has_lines_of_relative_path_and_value(ask: Ask) -> None:
    lines = ask("instance/disks/?recursive=true&alt=text").text.splitlines()
    assert "0/device-name boot" in lines


def test_recursive_root_has_exactly_four_parts(ask: Ask) -> None:
    document = ask("?recursive=true").json
    assert isinstance(document, dict)
    assert sorted(document) == ["instance", "oslogin", "project", "universe"]


def test_large_instance_id_is_an_exact_integer(ask: Ask) -> None:
    document = ask("?recursive=true&alt=json").json
    assert isinstance(document, dict)
    assert document["instance"]["id"] == 9007199254740993123


@pytest.mark.parametrize("query", ["alt=xml", "alt=yaml", "timeout_sec=x", "timeout_sec=-1"])
@pytest.mark.parametrize("query_head", ["", "recursive=true&wait_for_change=true&"])
def test_unusable_parameter_is_a_bad_request(ask: Ask, query_head: str, query: str) -> None:
    assert ask(f"instance/disks/?{query_head}{query}").status == 400


# Headers


@pytest.mark.parametrize(
    "path", ["instance/id", "nothing", "instance/disks", "/", "?recursive=true", "a?alt=%"]
)
def test_every_answer_has_the_platforms_headers(ask: Ask, path: str) -> None:
    headers = ask(path).headers
    assert headers["metadata-flavor"] == "Google"
    assert headers["server"] == "Metadata Server for VM"
    assert headers["x-xss-protection"] == "0"
    assert headers["x-frame-options"] == "SAMEORIGIN"
    assert "content-length" in headers


@pytest.mark.parametrize("path", ["instance/id", "nothing", "instance/disks", "?recursive=true"])
def test_no_other_header_names_the_platform(ask: Ask, path: str) -> None:
    headers = dict(ask(path).headers)
    assert headers.pop("metadata-flavor") == "Google"
    assert not [value for value in headers.values() if "google" in value.lower()]


def test_etag_belongs_to_the_path(ask: Ask) -> None:
    one, two = ask("instance/?recursive=true").etag, ask("project/?recursive=true").etag
    assert one != two
    assert all(len(etag) == 16 and set(etag) <= set("0123456789abcdef") for etag in (one, two))


def test_connection_is_kept_for_more_requests(mds: Emulator) -> None:
    connection = http.client.HTTPConnection(mds.host, timeout=10)
    for _ in range(3):
        connection.request("GET", "/", headers={})
        sock = connection.sock
        assert connection.getresponse().read() == b"computeMetadata/\n"
        assert connection.sock is sock
    connection.close()


# Service accounts


def test_access_tokens_are_counted(ask: Ask) -> None:
    path = "instance/service-accounts/default/token"
    answers = [ask(path + "?scopes=a,b").json, ask(path).json]
    assert answers == [
        {"access_token": f"fake-{number}", "expires_in": 3599, "token_type": "Bearer"}
        for number in (1, 2)
    ]


def test_account_is_also_known_by_its_address(ask: Ask) -> None:
    account = "instance/service-accounts/sa@sample-proj.iam.gserviceaccount.com"
    assert ask(f"{account}/token").status == 200
    assert ask(f"{account}/aliases").text == "default"


@pytest.mark.parametrize("leaf", ["token", "identity?audience=x"])
def test_without_account_there_is_no_token(mds: Emulator, ask: Ask, leaf: str) -> None:
    mds.set("instance/service-accounts", {})
    assert ask(f"instance/service-accounts/default/{leaf}").status == 404


def test_tokens_are_not_part_of_recursive_output(ask: Ask) -> None:
    assert "fake-" not in ask("?recursive=true").text
    account = ask("instance/service-accounts/default/?recursive=true").json
    assert isinstance(account, dict)
    assert sorted(account) == ["aliases", "email", "scopes"]


@pytest.mark.parametrize("query", ["", "?audience=", "?format=full"])
def test_identity_needs_an_audience(ask: Ask, query: str) -> None:
    answer = ask(f"instance/service-accounts/default/identity{query}")
    assert answer.status == 400
    assert "non-empty audience parameter required" in answer.text


def _claims(token: str) -> dict[str, object]:
    payload = token.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    assert isinstance(claims, dict)
    return claims


def test_identity_states_audience_issuer_and_expiry(ask: Ask) -> None:
    claims = _claims(ask("instance/service-accounts/default/identity?audience=a%20b").text)
    assert (claims["aud"], claims["iss"]) == ("a b", "https://accounts.google.com")
    assert isinstance(claims["exp"], int)
    assert 3500 < claims["exp"] - time.time() <= 3600
    assert "google" not in claims


def test_full_identity_states_the_instance(ask: Ask) -> None:
    path = "instance/service-accounts/default/identity?audience=a&format=full&licenses=TRUE"
    claims = _claims(ask(path).text)
    assert claims["email"] == "sa@sample-proj.iam.gserviceaccount.com"
    assert claims["google"] == {
        "compute_engine": {
            "instance_creation_timestamp": 1_600_000_000,
            "instance_id": "9007199254740993123",
            "instance_name": "demo-1",
            "license_id": ["1"],
            "project_id": "sample-proj",
            "project_number": 424242000001,
            "zone": "mars-north1-b",
        }
    }


def test_identity_is_signed_by_the_published_key(ask: Ask) -> None:
    token = ask("instance/service-accounts/default/identity?audience=a").text
    signed, _, signature = token.rpartition(".")
    keys = tokens.public_keys()["keys"]
    assert isinstance(keys, list)

    def number(text: str) -> int:
        return int.from_bytes(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), "big")

    opened = pow(number(signature), number(keys[0]["e"]), number(keys[0]["n"]))
    digest = hashlib.sha256(signed.encode("ascii")).digest()
    assert opened.to_bytes(256, "big").endswith(b"\x20" + digest)


# Workload certificates


@pytest.mark.parametrize("leaf", ["config-status", "workload-identities", "trust-anchors"])
def test_workload_certificates_are_not_configured_by_default(ask: Ask, leaf: str) -> None:
    assert ask(f"instance/gce-workload-certificates/{leaf}").status == 412


def test_configured_workload_certificates_are_served_verbatim(mds: Emulator, ask: Ask) -> None:
    document = {"status": "OK", "workloadCredentials": {"spiffe://a/b-C": {"certificatePem": "x"}}}
    mds.set("instance/gce-workload-certificates/workload-identities", document)
    answer = ask("instance/gce-workload-certificates/workload-identities")
    assert (answer.status, answer.json) == (200, document)
    assert "spiffe" not in ask("?recursive=true").text


# The emulator as an object


def test_values_can_be_set_read_and_removed(mds: Emulator, ask: Ask) -> None:
    mds.set("instance/attributes/color", "blue")
    assert ask("instance/attributes/color").text == "blue"
    assert mds.get("instance/attributes/color") == "blue"
    mds.delete("instance/attributes/color")
    assert ask("instance/attributes/color").status == 404
    assert mds.get("instance/attributes/color", "gone") == "gone"


def test_recorded_request_tells_what_was_asked(mds: Emulator, ask: Ask) -> None:
    before = time.time()
    ask("instance//disks/?recursive=true", headers={"Metadata-Flavor": "Google", "X-A": "b"})
    request = mds.requests()[-1]
    assert (request.method, request.path) == ("GET", "instance/disks/")
    assert request.query == {"recursive": "true"}
    assert request.headers["x-a"] == "b"
    assert before - 1 <= request.time <= time.time()


def test_requests_outside_the_service_keep_their_slash(mds: Emulator, ask: Ask) -> None:
    ask("/")
    assert [request.path for request in mds.requests()] == ["/"]


def test_record_keeps_the_newest_and_counts_all() -> None:
    with Emulator(request_limit=3) as mds:
        for number in range(5):
            ask_host(mds.host, f"instance/attributes/k{number}")
        assert [request.path[-2:] for request in mds.requests()] == ["k2", "k3", "k4"]
        assert mds.request_count == 5
        mds.clear_requests()
        assert (mds.requests(), mds.request_count) == ([], 5)


def test_waiting_for_a_request_that_never_comes_names_what_came(mds: Emulator, ask: Ask) -> None:
    ask("instance/id")
    with pytest.raises(TimeoutError, match="GET instance/id"):
        mds.wait_for_request("instance/guest-attributes/", 0.01, method="PUT")


def test_waiting_for_a_request_can_leave_out_older_ones(mds: Emulator, ask: Ask) -> None:
    ask("instance/id")
    first = mds.wait_for_request("instance/id", 5)
    with pytest.raises(TimeoutError):
        mds.wait_for_request("instance/id", 0.01, since=first)
    ask("instance/id")
    assert mds.wait_for_request("instance/id", 5, since=first).number > first.number


def test_address_must_be_named_to_leave_loopback(mds: Emulator) -> None:
    assert mds.host.startswith("127.0.0.1:")


def test_every_address_gets_the_same_port(ipv6: bool) -> None:
    if not ipv6:
        pytest.skip("no IPv6 loopback")
    with Emulator(address=("127.0.0.1", "::1")) as mds:
        assert mds.hosts == [f"127.0.0.1:{mds.port}", f"[::1]:{mds.port}"]
        assert [ask_host(host, "instance/name").text for host in mds.hosts] == ["demo-1"] * 2


def test_taken_port_is_reported_with_the_address(mds: Emulator) -> None:
    with pytest.raises(OSError, match=f"127.0.0.1 port {mds.port}"):
        Emulator(port=mds.port).start()
