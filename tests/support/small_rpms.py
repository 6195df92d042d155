"""rpm packages with next to nothing in them, for tests of what handles packages."""

from __future__ import annotations

from pathlib import Path

from support.commands import run_command

_SPEC = """
Name: {name}
Epoch: {epoch}
Version: {version}
Release: 1
Summary: a package for tests
License: Apache-2.0
BuildArch: noarch
%description
A package for tests.
%install
mkdir -p %{{buildroot}}/usr/share/{name}
echo '{version}{text}' >%{{buildroot}}/usr/share/{name}/version
%files
/usr/share/{name}
"""
_MADE_AT = "1700000000"


def small_rpm(folder: Path, name: str, version: str, *, epoch: int = 2, text: str = "") -> Path:
    """Make a package whose one file, /usr/share/NAME/version, holds its version and `text`."""
    folder.mkdir(parents=True, exist_ok=True)
    spec = folder / f"{name}.spec"
    spec.write_text(_SPEC.format(name=name, epoch=epoch, version=version, text=text))
    defines = {
        "_topdir": folder / "topdir",
        "_rpmdir": folder,
        "_build_name_fmt": "%%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm",
        "use_source_date_epoch_as_buildtime": 1,
        "clamp_mtime_to_source_date_epoch": 1,
        "_buildhost": "test.example",
    }
    options = [word for name, value in defines.items() for word in ("--define", f"{name} {value}")]
    run_command(
        ["rpmbuild", "-bb", *options, str(spec)],
        purpose="build a package",
        environment={"SOURCE_DATE_EPOCH": _MADE_AT},
    )
    return folder / f"{name}-{version}-1.noarch.rpm"
