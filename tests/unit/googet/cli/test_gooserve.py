"""The command line of gooserve: flags, exit statuses, what is printed and written."""

from __future__ import annotations

import gzip
import http.client
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from unit.googet.goos import make_goo

from googet.cli.gooserve import main
from googet.index import read_index
from googet.signing import check_signature, parse_public_key

SOURCES = Path(__file__).resolve().parents[4] / "src"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make_goo(tmp_path / "root" / "packages", "foo")
    return tmp_path / "root"


def test_saved_index(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["-root", str(root), "-save_index"]) == 0
    data = (root / "repo" / "index").read_bytes()
    assert [entry.source for entry in read_index(data)] == ["packages/foo.noarch.1.0.0@1.goo"]
    assert gzip.decompress((root / "repo" / "index.gz").read_bytes()) == data
    assert capfd.readouterr().out == f"wrote {root / 'repo'}\n"


def test_other_names(root: Path) -> None:
    make_goo(root / "p", "bar")
    argv = [f"--root={root}", "-package_path=p", "--repo_name", "r", "-save_index=true"]
    assert main(argv) == 0
    (entry,) = read_index((root / "r" / "index").read_bytes())
    assert entry.source == "p/bar.noarch.1.0.0@1.goo"


def test_current_folder_is_the_default(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    assert main(["-save_index"]) == 0
    assert (root / "repo" / "index").is_file()


def test_dumped_index_is_utf_8_without_a_mark(tmp_path: Path) -> None:
    make_goo(tmp_path / "packages", "foo")
    environment = {**os.environ, "PYTHONPATH": str(SOURCES), "PYTHONIOENCODING": "latin-1"}
    code = "import sys; from googet.cli.gooserve import main; sys.exit(main())"
    argv = [sys.executable, "-c", code, "-root", str(tmp_path), "-dump_index"]
    done = subprocess.run(argv, env=environment, capture_output=True, check=True)
    assert done.stdout.startswith(b"[\n  {\n")
    assert len(read_index(done.stdout)) == 1
    assert done.stderr == b""
    assert not (tmp_path / "repo").exists()


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-h"]) == 0
    assert "-package_path string" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (["-nonsense"], "nonsense"),
        (["-port", "many"], "port"),
        (["-port", "65536"], "no port 65536"),
        (["-port", "-1"], "no port -1"),
        (["-interval", "5"], "interval"),
        (["-interval", "0"], "-interval"),
        (["-interval", "-5m"], "-interval"),
        (["-save_index", "/srv/index"], "-save_index takes no path"),
        (["extra"], "unexpected argument 'extra'"),
        (["-tls_cert", "x"], "belong together"),
        (["-dump_index", "-save_index"], "exclude each other"),
    ],
)
def test_wrong_usage(capsys: pytest.CaptureFixture[str], argv: list[str], complaint: str) -> None:
    assert main(argv) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert complaint in captured.err
    assert "Usage: gooserve" in captured.err


@pytest.mark.parametrize(
    "more",
    [
        ["-package_path", "../outside"],
        ["-repo_name", ""],
        ["-sign_key", "/none.pem"],
        ["-package_path", "file"],
    ],
)
def test_failures_are_one_line(
    root: Path, capsys: pytest.CaptureFixture[str], more: list[str]
) -> None:
    (root / "file").write_text("x")
    assert main(["-root", str(root), "-save_index", *more]) == 1
    error = capsys.readouterr().err
    assert error.startswith("gooserve: ")
    assert error.count("\n") == 1
    assert not (root / "repo").exists()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
def test_signed_index(root: Path, tmp_path: Path) -> None:
    key = tmp_path / "key.pem"
    subprocess.run(["openssl", "genrsa", "-out", str(key), "2048"], check=True, capture_output=True)
    argv = ["openssl", "pkey", "-in", str(key), "-pubout"]
    public = parse_public_key(subprocess.run(argv, check=True, capture_output=True).stdout)
    arguments = ["-root", str(root), "-save_index", "-sign_key", str(key), "-sign_lifetime", "1h"]
    assert main(arguments) == 0
    index, signature = ((root / "repo" / name).read_bytes() for name in ("index", "index.sig"))
    statement = check_signature(public, index, signature)
    assert statement is not None
    assert statement.expires - statement.serial == 3600


def test_serving(root: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(SOURCES)}
    code = "import sys; from googet.cli.gooserve import main; sys.exit(main())"
    argv = [sys.executable, "-c", code, "-root", str(root), "-port", "0", "-address", "127.0.0.1"]
    with subprocess.Popen(argv, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            line = process.stderr.readline()
            match = re.fullmatch(r"gooserve: serving http://127\.0\.0\.1:(\d+)/repo\n", line)
            assert match is not None, line
            connection = http.client.HTTPConnection("127.0.0.1", int(match[1]), timeout=20)
            connection.request("GET", "/repo/index.gz")
            assert len(read_index(connection.getresponse().read())) == 1
            connection.close()
        finally:
            process.kill()


def test_port_in_use(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert main(["-root", str(root), "-address", "127.0.0.1", "-port", port]) == 1
    assert "cannot be used" in capsys.readouterr().err
