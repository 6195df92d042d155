"""Certificates for the emulator's HTTPS listener, which demands a client certificate.

``generate`` makes a root, a server and a client certificate with the ``openssl`` command in a
directory; ``server_context`` loads them.  Files: ``root.crt``, ``root.key``, ``server.crt``,
``server.key``, ``client.crt`` and ``client.key`` (certificate followed by key, the form in which
the guest keeps it).

Facts: openssl-req(1), openssl-x509(1), google-guest-agent ``cmd/core_plugin/agentcrypto/`` for the
file form and the verification of both sides.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

_DAYS = "3650"
_NAMES = ("metadata.google.internal", "metadata", "localhost")
_ADDRESSES = ("169.254.169.254", "fd20:ce::254", "127.0.0.1", "::1")


class TlsError(RuntimeError):
    """The certificates cannot be made or read."""


@dataclass(frozen=True)
class TlsFiles:
    """Where the certificates and keys are."""

    directory: str

    def path(self, name: str) -> str:
        return os.path.join(self.directory, name)

    @property
    def complete(self) -> bool:
        needed = ("root.crt", "server.crt", "server.key", "client.key")
        return all(os.path.exists(self.path(name)) for name in needed)


def generate(directory: str, addresses: Sequence[str] = ()) -> TlsFiles:
    """Make what is missing in ``directory``; raises TlsError when ``openssl`` fails."""
    files = TlsFiles(directory)
    os.makedirs(directory, mode=0o700, exist_ok=True)
    if files.complete:
        return files
    _make_root(files)
    alternatives = [f"DNS:{name}" for name in _NAMES]
    for address in dict.fromkeys((*_ADDRESSES, *addresses)):
        alternatives.append(f"IP:{ipaddress.ip_address(address)}")
    _make_leaf(
        files,
        "server",
        "/O=Emulated platform/CN=metadata.google.internal",
        f"extendedKeyUsage=serverAuth\nsubjectAltName={','.join(alternatives)}\n",
    )
    _make_leaf(
        files, "client", "/O=google.internal/CN=demo-instance", "extendedKeyUsage=clientAuth\n"
    )
    with open(files.path("client.crt"), encoding="ascii") as certificate:
        pem = certificate.read()
    with open(files.path("client.key"), encoding="ascii") as key:
        pem += key.read()
    _write(files.path("client.key"), pem)
    return files


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """What the HTTPS listener needs; raises TlsError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(files.path("server.crt"), files.path("server.key"))
        context.load_verify_locations(files.path("root.crt"))
    except OSError as problem:
        raise TlsError(f"certificates in {files.directory}: {problem}") from problem
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def _make_root(files: TlsFiles) -> None:
    _openssl(
        *("req", "-x509", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
        *("-noenc", "-days", _DAYS, "-subj", "/O=Emulated platform/CN=google.internal"),
        *("-addext", "basicConstraints=critical,CA:TRUE"),
        *("-addext", "keyUsage=critical,keyCertSign,cRLSign"),
        *("-keyout", files.path("root.key"), "-out", files.path("root.crt")),
    )


def _make_leaf(files: TlsFiles, name: str, subject: str, extensions: str) -> None:
    request, settings = files.path(f"{name}.csr"), files.path(f"{name}.ext")
    _write(settings, f"basicConstraints=critical,CA:FALSE\n{extensions}")
    _openssl(
        *("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
        *("-noenc", "-subj", subject),
        *("-keyout", files.path(f"{name}.key"), "-out", request),
    )
    _openssl(
        *("x509", "-req", "-in", request, "-days", _DAYS, "-extfile", settings),
        *("-CA", files.path("root.crt"), "-CAkey", files.path("root.key")),
        *("-CAcreateserial", "-out", files.path(f"{name}.crt")),
    )
    os.unlink(request)
    os.unlink(settings)


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w", encoding="ascii") as file:
        file.write(text)


def _openssl(*arguments: str) -> None:
    try:
        subprocess.run(
            ("openssl", *arguments),
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=60,
            env={"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C.UTF-8"},
        )
    except FileNotFoundError:
        raise TlsError("the openssl command is not installed") from None
    except subprocess.TimeoutExpired:
        raise TlsError(f"openssl {arguments[0]} did not finish") from None
    except subprocess.CalledProcessError as problem:
        text = problem.stderr.decode("utf-8", "replace").strip()
        raise TlsError(f"openssl {arguments[0]} failed: {text}") from None
