"""The runner as users see it: order, messages, exit codes, how scripts are executed."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
from unit.scripts.conftest import IMPATIENT, ScriptGuest
from unit.scripts.web import Page, Web

from google_guest.records import replace


def test_inline_script_runs_before_the_one_behind_the_url(guest: ScriptGuest, web: Web) -> None:
    web.page(f"http://127.0.0.1:{web.port}/x.sh", Page(b"#!/bin/sh\necho second\n"))
    guest.set("startup-script-url", f"http://127.0.0.1:{web.port}/x.sh")
    guest.set("startup-script", "#!/bin/sh\necho first\n")
    told = guest.run()
    assert [line for line in told.lines if "insecure" not in line and "security" not in line] == [
        told.lines[0],
        "Found startup-script in metadata.",
        "startup-script: first",
        "startup-script exit status 0",
        "Found startup-script-url in metadata.",
        "startup-script-url: second",
        "startup-script-url exit status 0",
        "Finished running startup scripts.",
    ]


def test_first_line_names_event_and_version(guest: ScriptGuest) -> None:
    from google_guest.version import version

    assert guest.run().lines[0] == f"Starting startup scripts (version {version()})."


def test_failed_script_neither_stops_the_next_nor_fails_the_runner(
    guest: ScriptGuest, web: Web
) -> None:
    web.page(f"http://127.0.0.1:{web.port}/x.sh", Page(b"echo still here\n"))
    guest.set("startup-script", "#!/bin/sh\nexit 3\n")
    guest.set("startup-script-url", f"http://127.0.0.1:{web.port}/x.sh")
    told = guest.run()
    at = told.lines.index('Script "startup-script" failed with error: exit status 3')
    assert told.lines[at + 1] == "startup-script exit status 3"
    assert told.from_script("startup-script-url")[-1] == "still here"
    assert told.status == 0


def test_instance_url_hides_the_script_of_the_project(guest: ScriptGuest, web: Web) -> None:
    web.page(f"http://127.0.0.1:{web.port}/x.sh", Page(b"echo instance\n"))
    guest.set("startup-script-url", f"http://127.0.0.1:{web.port}/x.sh")
    guest.set("startup-script", "echo project", level="project")
    told = guest.run()
    assert "Found startup-script in metadata." not in told.lines
    assert "startup-script-url: instance" in told.lines


@pytest.mark.parametrize("value", ["", " \n\t"])
def test_empty_script_of_the_instance_does_not_mask_the_project(
    guest: ScriptGuest, value: str
) -> None:
    guest.set("startup-script", value)
    guest.set("startup-script", "echo project", level="project")
    told = guest.run()
    assert told.from_script() == ["project"]
    assert "startup-script is empty in instance metadata and counts as absent." in told.lines


def test_shutdown_runs_its_own_keys(guest: ScriptGuest) -> None:
    guest.set("startup-script", "echo up")
    guest.set("shutdown-script", "echo down")
    assert guest.run("shutdown").lines[1:] == (
        "Found shutdown-script in metadata.",
        "shutdown-script: down",
        "shutdown-script exit status 0",
        "Finished running shutdown scripts.",
    )


def test_without_scripts_nothing_is_created(guest: ScriptGuest) -> None:
    before = sorted(path for path in guest.root.rglob("*") if "google-guest" not in str(path))
    told = guest.run()
    after = sorted(path for path in guest.root.rglob("*") if "google-guest" not in str(path))
    assert told.lines[1:] == ("No startup scripts to run.",)
    assert told.status == 0
    assert [path for path in after if path.name != "log"] == before


@pytest.mark.parametrize("value", ["false", "no", "0"])
def test_disabled_event_runs_nothing_and_succeeds(guest: ScriptGuest, value: str) -> None:
    guest.configure(f"startup = {value}")
    guest.set("startup-script", "echo never")
    told = guest.run()
    assert told.lines[1:] == ("startup scripts disabled in instance config",)
    assert told.status == 0
    assert guest.mds.requests() == []


def test_typing_error_in_the_configuration_disables_nothing(guest: ScriptGuest) -> None:
    guest.configure("startup = maybe")
    guest.set("startup-script", "echo ran")
    told = guest.run()
    assert told.from_script() == ["ran"]
    assert "[MetadataScripts] startup = 'maybe' is no boolean" in told.lines[0]


def test_value_that_is_no_text_is_run_as_text(guest: ScriptGuest) -> None:
    guest.mds.fault(
        "instance/attributes",
        "body",
        body='{"startup-script": 7}',
        content_type="application/json",
        exact=False,
    )
    told = guest.run()
    assert "startup-script exit status 127" in told.lines


@pytest.mark.parametrize(
    ("script", "lines"),
    [
        (
            " \n\t\n #!/usr/bin/env python3\nimport sys; print(sys.argv[0][-14:])",
            ["startup-script"],
        ),
        ("a=(one two); echo ${a[1]} $# ${0##*/}", ["two 0 startup-script"]),
        ("#!/bin/sh -e\necho $-", ["e"]),
        ("\ufeff#!/bin/sh\necho marked", ["marked"]),
        ("printf 'no end'", ["no end"]),
        ("echo; echo; echo x", ["", "", "x"]),
        ("echo out; echo err >&2; echo out", ["out", "err", "out"]),
        ("printf '\\xff\\xfeA\\n'", ["\\xff\\xfeA"]),
        ("printf 'a\\rb\\033[2Jc\\td\\r\\n'", ["a\\x0db\\x1b[2Jc\td"]),
        ('read line; echo "<$line>"', ["<>"]),
        ("umask", ["0022"]),
        ("yes | head -1; echo ${PIPESTATUS[0]}", ["y", "141"]),
    ],
)
def test_script_output(guest: ScriptGuest, script: str, lines: list[str]) -> None:
    guest.set("startup-script", script)
    told = guest.run()
    assert told.from_script() == lines
    assert "startup-script exit status 0" in told.lines


def test_windows_line_ends_are_converted_with_one_warning(guest: ScriptGuest) -> None:
    guest.set("startup-script", "#!/bin/bash\r\nif true\r\nthen echo ran\r\nfi\r\n")
    told = guest.run()
    assert told.from_script() == ["ran"]
    assert len([line for line in told.lines if "CRLF" in line]) == 1


def test_program_runs(guest: ScriptGuest, web: Web) -> None:
    program = Path(shutil.which("true") or "/bin/true").resolve().read_bytes()
    web.page(f"http://127.0.0.1:{web.port}/true", Page(program))
    guest.set("startup-script-url", f"http://127.0.0.1:{web.port}/true")
    assert "startup-script-url exit status 0" in guest.run().lines


def test_missing_interpreter_is_named_and_reported_as_127(guest: ScriptGuest) -> None:
    guest.set("startup-script", "#!/no/such/python\nprint()")
    told = guest.run()
    assert told.from_script()[0].endswith(
        ": /no/such/python: bad interpreter: No such file or directory"
    )
    assert 'Script "startup-script" failed with error: exit status 127' in told.lines


def test_missing_default_shell_falls_back_to_sh(guest: ScriptGuest) -> None:
    guest.configure("default_shell = /no/such/shell")
    guest.set("startup-script", "echo ran by $0")
    assert guest.run().from_script()[0].startswith("ran by /")


def test_default_shell_runs_what_names_no_interpreter(guest: ScriptGuest) -> None:
    guest.configure("default_shell = /bin/sh")
    guest.set("startup-script", 'echo "${BASH_VERSION:-none}" "$(ps -o args= -p $$ | head -c 7)"')
    assert "/bin/sh" in guest.run().from_script()[0]


@pytest.mark.parametrize(
    ("number", "word"),
    [(signal.SIGKILL, "killed"), (signal.SIGTERM, "terminated"), (signal.SIGPIPE, "broken pipe")],
)
def test_signal_that_ended_a_script_is_named(
    guest: ScriptGuest, number: signal.Signals, word: str
) -> None:
    guest.set("startup-script", f"kill -{int(number)} $$")
    told = guest.run()
    assert f'Script "startup-script" failed with error: signal: {word}' in told.lines
    assert not [line for line in told.lines if "exit status" in line]
    assert told.status == 0


def test_script_sees_the_account_of_root_and_nothing_of_the_runner(guest: ScriptGuest) -> None:
    guest.environment.update(
        {"JOURNAL_STREAM": "1:2", "NOTIFY_SOCKET": "/run/x", "LANG": "C.UTF-8"}
    )
    guest.set("startup-script", "#!/bin/sh\nexec env -u PWD env\n")
    names = {line.partition("=")[0] for line in guest.run().from_script()}
    assert names == {"PATH", "GCE_METADATA_HOST", "LANG", "HOME", "USER", "LOGNAME", "SHELL"}


@pytest.mark.parametrize(
    ("variable", "value"),
    [("HOME", "/root"), ("USER", "root"), ("LOGNAME", "root"), ("SHELL", "/bin/bash")],
)
def test_variable_of_the_account_is_set_when_missing(
    guest: ScriptGuest, variable: str, value: str
) -> None:
    guest.set("startup-script", f"#!/bin/sh\necho ${variable}")
    assert guest.run().from_script() == [value]


def test_variable_that_was_set_is_kept(guest: ScriptGuest) -> None:
    guest.environment["HOME"] = "/srv"
    guest.set("startup-script", "echo $HOME")
    assert guest.run().from_script() == ["/srv"]


def test_working_directory_is_the_runners(
    guest: ScriptGuest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    guest.set("startup-script", "pwd -P")
    assert guest.run().from_script() == [os.path.realpath(tmp_path)]


def test_file_and_directory_are_private(guest: ScriptGuest) -> None:
    guest.set("startup-script", 'stat -c %a "$0" "$(dirname "$0")"; basename "$0"')
    assert guest.run().from_script() == ["700", "700", "startup-script"]


@pytest.mark.parametrize("script", ["exit 0", "exit 1", "kill -9 $$", "touch $(dirname $0)/more"])
def test_nothing_is_left_of_the_script(guest: ScriptGuest, script: str) -> None:
    guest.set("startup-script", script)
    guest.run()
    assert guest.scripts_left() == []


def test_run_dir_is_created_and_used(guest: ScriptGuest) -> None:
    guest.configure("run_dir = /opt/scripts")
    guest.set("startup-script", "echo $0")
    told = guest.run()
    assert told.from_script()[0].startswith(f"{guest.root}/opt/scripts/metadata-scripts")
    assert (guest.root / "opt/scripts").stat().st_mode & 0o777 == 0o700


def test_unusable_run_dir_fails_the_script_and_not_the_runner(guest: ScriptGuest) -> None:
    (guest.root / "file").write_text("")
    guest.configure("run_dir = /file")
    guest.set("startup-script", "echo never")
    told = guest.run()
    assert (
        'Script "startup-script" failed with error: no directory for the script:'
        " /file: it is no directory"
    ) in told.lines
    assert told.status == 0


def test_silent_metadata_server_is_status_1(guest: ScriptGuest) -> None:
    guest.mds.fault("instance/attributes", "hang")
    guest.set("shutdown-script", "echo never")
    told = guest.run("shutdown", patience=IMPATIENT)
    assert told.status == 1
    assert told.lines[-1].startswith("Cannot read shutdown scripts from metadata: ")


def test_result_file_tells_every_script(guest: ScriptGuest) -> None:
    guest.set("startup-script", "exit 3")
    guest.set("startup-script-url", "ftp://example.test/x")
    guest.run()
    path = guest.root / "run/google-guest-agent/scripts/startup.json"
    document = json.loads(path.read_text())
    rows = [
        (row["key"], row["exit_status"], row["signal"], row["error"]) for row in document["scripts"]
    ]
    assert rows == [
        ("startup-script", 3, None, "exit status 3"),
        ("startup-script-url", None, None, 'unsupported URL scheme "ftp"'),
    ]
    assert (document["event"], document["state"], document["error"]) == (
        "startup",
        "finished",
        None,
    )
    assert path.stat().st_mode & 0o777 == 0o644


def test_result_file_tells_the_signal(guest: ScriptGuest) -> None:
    guest.set("startup-script", "kill -9 $$")
    guest.run()
    path = guest.root / "run/google-guest-agent/scripts/startup.json"
    assert json.loads(path.read_text())["scripts"][0]["signal"] == "SIGKILL"


def test_result_file_shows_a_script_that_runs(guest: ScriptGuest) -> None:
    guest.set("startup-script", f"cat {guest.root}/run/google-guest-agent/scripts/startup.json")
    document = json.loads("\n".join(guest.run().from_script()))
    assert document["state"] == "running"
    assert document["scripts"][0]["exit_status"] is None


def test_result_directory_that_cannot_be_written_is_one_warning(guest: ScriptGuest) -> None:
    (guest.root / "run/google-guest-agent").write_text("")
    guest.set("startup-script", "echo ran")
    told = guest.run()
    assert told.from_script() == ["ran"]
    assert len([line for line in told.lines if line.startswith("Cannot write ")]) == 1


def test_result_becomes_a_guest_attribute_when_asked_for(guest: ScriptGuest) -> None:
    guest.configure("report_exit_status = true")
    guest.set("enable-guest-attributes", "TRUE")
    guest.set("startup-script", "exit 3")
    guest.run()
    published = json.loads(guest.mds.guest_attributes()["guest-scripts"]["startup-script"])
    assert published["exit_status"] == 3


def test_result_is_not_published_by_default(guest: ScriptGuest) -> None:
    guest.set("enable-guest-attributes", "TRUE")
    guest.set("startup-script", "exit 3")
    guest.run()
    assert guest.mds.guest_attributes() == {}


def test_refused_guest_attribute_is_a_warning(guest: ScriptGuest) -> None:
    guest.configure("report_exit_status = true")
    guest.set("startup-script", "exit 0")
    told = guest.run()
    assert any(line.startswith("Cannot publish the result of ") for line in told.lines)
    assert told.status == 0


def test_silent_download_server_is_given_up(guest: ScriptGuest, web: Web) -> None:
    url = f"http://127.0.0.1:{web.port}/x.sh"
    web.page(url, Page(silent=True))
    guest.set("shutdown-script-url", url)
    patience = replace(IMPATIENT, metadata_request=5.0, metadata_total=10.0)
    told = guest.run("shutdown", patience=patience)
    assert (
        'Script "shutdown-script-url" failed with error: not finished within 0.5 s'
    ) in told.lines
    assert guest.scripts_left() == []


def test_256_kib_inline_run(guest: ScriptGuest) -> None:
    head, tail = "#!/bin/sh\n", "\necho done"
    guest.set("startup-script", head + "#" * (256 * 1024 - len(head) - len(tail)) + tail)
    assert guest.run().from_script() == ["done"]
