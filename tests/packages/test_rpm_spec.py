"""The rpm spec as Debian's rpm reads it, bare and for every target; no package is built.

``rpm_scriptlets/FAMILY.txt`` is what the scriptlets are, as text; a test's message says how it is
written anew when a change is wanted.
"""

from __future__ import annotations

import re
from pathlib import Path

import artifact_table
import pytest
import release
from support import rpms
from support.commands import run_command

GOLDEN = Path(__file__).parent / "rpm_scriptlets"
FAMILIES = {"el": "el9", "sles": "sles15"}
SUSE_NAMES = {"google-guest-configs", "google-guest-oslogin", "google-guest-oslogin-selinux"}


@pytest.fixture(autouse=True)
def _possible() -> None:
    if rpms.missing():
        pytest.skip("; ".join(rpms.missing()))


def relations(target: str, package: str, kind: str) -> list[str]:
    form = f"%{{NAME}}|[%{{{kind}NAME}} %{{{kind}FLAGS:depflags}} %{{{kind}VERSION}};]\n"
    lines = dict(line.split("|", 1) for line in rpms.spec_query(target, form).splitlines())
    return sorted({" ".join(each.split()) for each in lines[package].split(";") if each.strip()})


def package_name(target: str, key: str) -> str:
    return artifact_table.package(artifact_table.target(target), key).name


def scriptlets(target: str) -> str:
    tags = "".join(f"== {tag} %{{{tag}PROG}}\n%{{{tag}}}\n" for tag in rpms.SCRIPTLETS)
    text = rpms.spec_query(target, f"# %{{NAME}}\n{tags}")
    return re.sub(r"== \w+ \(none\)\n\(none\)\n", "", text)


def test_bare_spec_is_read_without_sources_and_definitions() -> None:
    command = ["rpmspec", "-q", "--queryformat", "%{NAME}\n", str(rpms.SPEC)]
    done = run_command(command, purpose="read the spec")
    assert (done.status, done.stderr) == (0, "")
    assert "google-guest-agent" in done.stdout.split()


@pytest.mark.parametrize("target", rpms.TARGETS)
def test_packages_have_the_names_architectures_and_version_of_the_table(target: str) -> None:
    known = artifact_table.target(target)
    found = rpms.spec_query(target, "%{NAME} %{ARCH} %{EPOCH} %{VERSION} %{RELEASE}\n").splitlines()
    machine = run_command(["rpm", "--eval", "%{_arch}"], purpose="ask rpm").stdout.strip()
    expected = {
        f"{package.name} {'noarch' if package.arch == 'all' else machine} (none)"
        f" {release.version()} 1{known.dist}"
        for package in artifact_table.packages(known)
    }
    assert {line for line in found if not line.startswith(release.SOURCE)} == expected


@pytest.mark.parametrize("target", rpms.TARGETS)
def test_no_relation_of_a_distributors_build_has_an_epoch(target: str) -> None:
    kinds = ("REQUIRE", "PROVIDE", "CONFLICT", "OBSOLETE", "RECOMMEND", "SUGGEST")
    form = "".join(f"[%{{{kind}NAME}} %{{{kind}VERSION}}\n]" for kind in kinds)
    assert re.findall(r"^.* [0-9]+:.*$", rpms.spec_query(target, form), re.MULTILINE) == []


def test_no_relation_of_the_spec_names_an_epoch() -> None:
    tags = r"^(Requires|Recommends|Suggests|Provides|Obsoletes|Conflicts)\S*\s+.*$"
    lines = [match[0] for match in re.finditer(tags, rpms.SPEC.read_text(), re.MULTILINE)]
    assert len(lines) > 20
    assert [line for line in lines if re.search(r"[0-9]+:", line)] == []


def test_repository_build_has_its_epoch_in_every_package_and_own_relation() -> None:
    epoch = ("--define", "guest_epoch 2")
    assert set(rpms.spec_query("el9", "%{EPOCH}\n", *epoch).split()) == {"2"}
    form = "%{NAME}|[%{REQUIRENAME} %{REQUIREVERSION};]\n"
    lines = dict(row.split("|") for row in rpms.spec_query("el9", form, *epoch).splitlines())
    wanted = f"python3-google-guest 2:{release.version()}-1.el9"
    assert wanted in lines["google-guest-agent"]


@pytest.mark.parametrize("target", rpms.TARGETS)
@pytest.mark.parametrize(
    "name", ["jq", "curl", "networkd-dispatcher", "parted", "gdisk", "boost", "json-c"]
)
def test_no_relation_names_what_nothing_needs(target: str, name: str) -> None:
    assert not re.search(rf"^{name}\b", rpms.spec_query(target, "[%{REQUIRENAME}\n]"), re.MULTILINE)


@pytest.mark.parametrize("target", rpms.TARGETS)
@pytest.mark.parametrize(
    "key", ["google-guest-agent", "google-compute-engine", "google-compute-engine-oslogin"]
)
def test_package_needs_the_library_of_its_own_release(target: str, key: str) -> None:
    library = package_name(target, "python3-google-guest")
    dist = artifact_table.target(target).dist
    wanted = f"{library} = {release.version()}-1{dist}"
    assert wanted in relations(target, package_name(target, key), "REQUIRE")


def test_agent_recommends_os_login_and_os_login_does_not_need_the_agent() -> None:
    assert "google-compute-engine-oslogin" in relations("el9", "google-guest-agent", "RECOMMEND")
    assert "google-guest-agent" not in relations("el9", "google-compute-engine-oslogin", "REQUIRE")


def test_selinux_part_comes_where_the_targeted_policy_is() -> None:
    needed = relations("el9", "google-compute-engine-oslogin", "REQUIRE")
    assert any(each.startswith("(google-compute-engine-oslogin-selinux = ") for each in needed)
    assert any("if selinux-policy-targeted)" in each for each in needed)


@pytest.mark.parametrize(
    ("target", "openssh"), [("el8", "8.0p1-15"), ("el9", "8.2p1"), ("sles15", "8.2p1")]
)
def test_os_login_needs_an_sshd_that_it_works_with(target: str, openssh: str) -> None:
    name = package_name(target, "google-compute-engine-oslogin")
    assert f"openssh-server >= {openssh}" in relations(target, name, "REQUIRE")


@pytest.mark.parametrize("target", ["sles15", "sles16"])
def test_suses_names_provide_the_others_in_their_version(target: str) -> None:
    own = {package.name for package in artifact_table.packages(artifact_table.target(target))}
    assert own >= SUSE_NAMES
    provided = {relation for name in own for relation in relations(target, name, "PROVIDE")}
    for name in (
        "google-compute-engine",
        "google-compute-engine-oslogin",
        "python3-google-guest",
    ):
        assert f"{name} = {release.version()}-1" in provided
    obsolete = relations(target, "google-guest-oslogin", "OBSOLETE")
    assert f"google-compute-engine-oslogin < {release.version()}" in obsolete


@pytest.mark.parametrize("target", rpms.TARGETS)
def test_everything_that_is_obsoleted_has_a_version(target: str) -> None:
    text = rpms.spec_query(target, "[%{OBSOLETENAME} %{OBSOLETEFLAGS:depflags};]\n")
    found = [each.strip() for each in text.replace("\n", ";").split(";") if each.strip()]
    assert len(found) >= 2
    assert [each for each in found if not each.endswith("<")] == []


@pytest.mark.parametrize("family", FAMILIES)
def test_scriptlets_are_those_of_the_golden_file(family: str) -> None:
    file = GOLDEN / f"{family}.txt"
    text = scriptlets(FAMILIES[family])
    again = f"{file.name} is not what the spec gives: look at it, and write it with" + (
        f" PYTHONPATH=tests:tools python3 {Path(__file__).name} (from the top)"
    )
    assert file.read_text() == text, again


@pytest.mark.parametrize("target", rpms.TARGETS)
def test_scriptlets_have_no_macro_left_and_are_valid_for_a_posix_shell(
    target: str, tmp_path: Path
) -> None:
    text = scriptlets(target)
    assert re.findall(r"%\{.*|^\s*%[a-z_]+.*", text, re.MULTILINE) == []
    parts = re.split(r"^(?:# |== ).*\n", text, flags=re.MULTILINE)
    assert len([part for part in parts if part.strip()]) >= 15
    for number, part in enumerate(parts):
        script = tmp_path / str(number)
        script.write_text(part)
        run_command(["dash", "-n", str(script)], purpose="read a scriptlet")


@pytest.mark.parametrize("target", rpms.TARGETS)
def test_nothing_predictable_lies_in_a_folder_that_everybody_writes_to(target: str) -> None:
    assert re.findall(r"(?<![a-z])/tmp\b|/var/tmp|/dev/shm", scriptlets(target)) == []


@pytest.mark.parametrize("target", rpms.TARGETS)
def test_no_scriptlet_starts_stops_or_restarts_a_script_unit(target: str) -> None:
    text = scriptlets(target).replace("\\\n", " ")
    commands = [
        line for line in text.splitlines() if "systemctl" in line and "google-startup" in line
    ]
    assert commands != []
    for line in commands:
        assert re.search(r"systemctl --no-reload (preset|disable) ", line), line
        assert "--now" not in line


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for chosen, example in FAMILIES.items():
        (GOLDEN / f"{chosen}.txt").write_text(scriptlets(example))
