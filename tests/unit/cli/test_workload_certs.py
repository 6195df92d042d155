"""``gce_workload_cert_refresh``: exit status, and when the metadata server is asked at all."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.trees import tree

from google_guest.cli import workload_certs
from metadata_server import Emulator


@pytest.fixture(autouse=True)
def _log_handlers() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def mds(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    with Emulator(profile="linux") as emulator:
        monkeypatch.setenv("GCE_METADATA_HOST", emulator.host)
        yield emulator


def test_machine_that_is_no_instance_asks_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GCE_METADATA_HOST", raising=False)
    assert workload_certs.main([], system=tree(tmp_path)) == 0
    assert not (tmp_path / "run").exists()


def test_instance_without_the_attribute_is_left_alone(tmp_path: Path, mds: Emulator) -> None:
    assert workload_certs.main([], system=tree(tmp_path)) == 0
    assert not (tmp_path / "run/secrets").exists()


def test_unconfigured_instance_is_no_failure(tmp_path: Path, mds: Emulator) -> None:
    mds.set("instance/attributes/enable-workload-certificate", "true")
    assert workload_certs.main([], system=tree(tmp_path)) == 0
    assert not (tmp_path / "run/secrets").exists()


def test_credentials_are_put_in_force(tmp_path: Path, mds: Emulator) -> None:
    configure(mds)
    files = {"/etc/default/instance_configs.cfg": "[MWLID]\nprivate_key_mode = 0640\n"}
    assert workload_certs.main([], system=tree(tmp_path, files)) == 0
    key = tmp_path / "run/secrets/workload-spiffe-credentials/private_key.pem"
    assert (key.read_text(), key.stat().st_mode & 0o777) == ("KEY", 0o640)


def test_incomplete_answer_is_status_1(tmp_path: Path, mds: Emulator) -> None:
    configure(mds)
    mds.delete("instance/gce-workload-certificates/trust-anchors")
    assert workload_certs.main([], system=tree(tmp_path)) == 1


def test_wrong_argument_is_status_2() -> None:
    with pytest.raises(SystemExit) as stopped:
        workload_certs.main(["--nonsense"])
    assert stopped.value.code == 2


def configure(mds: Emulator) -> None:
    folder = "instance/gce-workload-certificates"
    identity = '{"certificatePem": "CERT", "privateKeyPem": "KEY"}'
    mds.set("instance/attributes/enable-workload-certificate", "true")
    mds.set(f"{folder}/config-status", '{"status": "OK"}')
    mds.set(
        f"{folder}/workload-identities",
        f'{{"status": "OK", "workloadCredentials": {{"spiffe://d.example/ns/a": {identity}}}}}',
    )
    mds.set(
        f"{folder}/trust-anchors",
        '{"status": "OK", "trustAnchors": {"d.example": {"trustAnchorsPem": "ANCHORS"}}}',
    )
