"""Programs that run as root must not depend on what people do to Python on their machine."""

from __future__ import annotations

import pytest
from release import version
from support.chroot import Chroot
from support.debs import CONFIGS, OSLOGIN

BROKEN = "raise SystemExit('this module must not be loaded')\n"
LOCAL = "/usr/local/lib/python3.11/dist-packages"

# Each program with arguments that need neither the network nor a terminal, and its exit status.
STARTS = (
    ("google-guest version", 0),
    ("google_guest_agent --print-config", 0),
    ("google_metadata_script_runner no-such-event", 2),
    ("gce_metadata_script_runner no-such-event", 2),
    ("gce_compat_metadata_script_runner no-such-event", 2),
    ("google_metadata_script_runner_adapt no-such-event", 2),
    ("google_metadata_authorized_keys", 1),
    ("gce_workload_cert_refresh --no-such-option", 2),
    ("google_authorized_keys", 1),
    ("google_authorized_keys_sk", 1),
    ("google_authorized_principals", 1),
    ("google_oslogin_control no-such-action", 1),
    ("google_oslogin_nss_cache --no-such-option", 1),
    ("/usr/libexec/google-oslogind --no-such-option", 2),
    ("gce-nic-naming --no-such-option", 2),
    ("google_optimize_local_ssd --no-such-option", 2),
    ("google_set_hostname --no-such-option", 2),
    ("google_set_multiqueue --no-such-option", 2),
    ("/usr/lib/udev/google_nvme_id -h", 0),
)


@pytest.fixture
def polluted(chroot) -> Chroot:
    """A system on which nearly everything that Python can be told is wrong."""
    system: Chroot = chroot(packages=(OSLOGIN, CONFIGS))
    for module in ("yaml", "urllib3", "google_guest", "json", "logging", "sitecustomize"):
        system.write(f"{LOCAL}/{module}.py", BROKEN)
    system.write(f"{LOCAL}/hostile.pth", "import sys; sys.exit('a .pth file was run')\n")
    system.write("/usr/lib/python3/dist-packages/hostile.pth", "import sys; sys.exit('.pth')\n")
    system.write("/hostile/json.py", BROKEN)
    for name in ("python3", "python3.11"):
        system.write(f"/usr/local/bin/{name}", "#!/bin/sh\nexit 70\n", mode=0o755)
    return system


@pytest.mark.parametrize(("command", "status"), STARTS)
def test_program_starts_on_a_machine_whose_python_is_broken(
    polluted: Chroot, command: str, status: int
) -> None:
    hostile = {"PYTHONPATH": "/hostile", "PYTHONHOME": "/hostile", "PYTHONSTARTUP": "/hostile"}
    done = polluted.run(["sh", "-c", f"cd /hostile; {command}"], check=False, environment=hostile)
    assert "must not be loaded" not in done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    assert done.status == status, done.stderr


def test_programs_give_the_version_of_the_package(polluted: Chroot) -> None:
    assert polluted.run(["google-guest", "version"]).stdout.strip() == version()
