"""The program ``google_mds_emulator``: a metadata server on this machine until it is stopped.

Prints one line ``GCE_METADATA_HOST=ADDRESS:PORT`` on standard output as soon as it answers, and
runs until SIGTERM or SIGINT (exit status 0).  Reads the files named on its command line; writes
the control token file and the TLS directory.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import secrets
import signal
import sys
import threading
from collections.abc import Sequence
from typing import Optional

from metadata_server import tls
from metadata_server.credentials import credentials_source, unsealed
from metadata_server.emulator import Emulator
from metadata_server.profiles import PROFILES
from metadata_server.server import AddressInUse

_STACK_SIZE = 512 * 1024


class UsageError(Exception):
    """What the caller gave cannot be used; the message says what and why."""


def main(arguments: Optional[Sequence[str]] = None) -> int:
    options = _parser().parse_args(arguments)
    logging.basicConfig(format="google_mds_emulator: %(levelname)s: %(message)s")
    # A waiting client costs a thread: small stacks and every descriptor we may have.
    threading.stack_size(_STACK_SIZE)
    _raise_descriptor_limit()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        emulator = _emulator(options)
        with emulator:
            _announce(emulator)
            _wait(stop)
    except (UsageError, AddressInUse, tls.TlsError) as problem:
        print(f"google_mds_emulator: {problem}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="google_mds_emulator", description="Emulate the Compute Engine metadata server."
    )
    parser.add_argument(
        "--address",
        action="append",
        metavar="ADDR",
        help="IP address to listen on, may be repeated (127.0.0.1)",
    )
    parser.add_argument("--port", type=int, default=0, help="TCP port, 0 for any free one (0)")
    parser.add_argument("--profile", choices=sorted(PROFILES), default="linux")
    parser.add_argument("--tree", metavar="FILE", help="recursive document in place of a profile")
    parser.add_argument("--oslogin", metavar="FILE", help="OS Login directory (JSON)")
    parser.add_argument("--control-socket", metavar="PATH", help="control on a Unix socket")
    parser.add_argument(
        "--control-token-file",
        metavar="FILE",
        help="control on the TCP port; a new token is written here unless the file has one",
    )
    parser.add_argument(
        "--tls", metavar="DIR", help="also HTTPS with client certificates, made here if missing"
    )
    parser.add_argument("--tls-port", type=int, default=0, help="port of the HTTPS listener (0)")
    parser.add_argument(
        "--mtls-credentials",
        action="store_true",
        help="with --tls: serve the encrypted client certificate, its key readable in the answer",
    )
    parser.add_argument(
        "--guest-attribute-rate", type=float, metavar="N", help="answer 429 above N per second"
    )
    parser.add_argument(
        "--request-limit", type=int, default=10_000, metavar="N", help="requests kept (10000)"
    )
    return parser


def _emulator(options: argparse.Namespace) -> Emulator:
    addresses: list[str] = options.address or ["127.0.0.1"]
    if options.mtls_credentials and not options.tls:
        raise UsageError("--mtls-credentials needs --tls")
    files = tls.generate(options.tls, addresses) if options.tls else None
    emulator = Emulator(
        profile=options.profile,
        address=addresses,
        port=options.port,
        document=_json_file(options.tree) if options.tree else None,
        control_socket=options.control_socket,
        control_token=_control_token(options.control_token_file),
        request_limit=options.request_limit,
        guest_attribute_rate=options.guest_attribute_rate,
        tls=files,
        tls_port=options.tls_port,
    )
    if options.mtls_credentials and files is not None:
        emulator.serve_credentials(credentials_source(files, unsealed))
    if options.oslogin:
        try:
            emulator.set_oslogin(_json_file(options.oslogin))
        except (KeyError, TypeError, ValueError) as problem:
            raise UsageError(f"{options.oslogin}: {problem}") from problem
    return emulator


def _json_file(path: str) -> dict[str, object]:
    try:
        with open(path, encoding="utf-8-sig") as file:
            document = json.load(file)
    except OSError as problem:
        raise UsageError(f"{path}: {problem.strerror}") from problem
    except ValueError as problem:
        raise UsageError(f"{path}: not JSON: {problem}") from problem
    if not isinstance(document, dict):
        raise UsageError(f"{path}: a JSON object is expected")
    return document


def _control_token(path: Optional[str]) -> Optional[str]:
    """The token in a file, or a new one put there; without a file nobody learns the token."""
    if path is None:
        return None
    try:
        with open(path, encoding="ascii") as file:
            token = file.read().strip()
        if token:
            return token
        os.unlink(path)
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as problem:
        raise UsageError(f"{path}: {problem}") from problem
    token = secrets.token_hex(16)
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(token + "\n")
    except OSError as problem:
        raise UsageError(f"{path}: {problem.strerror}") from problem
    return token


def _announce(emulator: Emulator) -> None:
    # One assignment per line, so that a shell can take them over with eval.
    print(f"GCE_METADATA_HOST={emulator.host}", flush=True)
    for host in emulator.hosts[1:]:
        print(f"# also {host}", flush=True)
    with contextlib.suppress(RuntimeError):
        print(f"# HTTPS port {emulator.tls_port}", flush=True)


def _wait(stop: threading.Event) -> None:
    if os.name == "posix":
        stop.wait()
        return
    while not stop.wait(0.5):  # elsewhere a blocked wait does not let signals through
        pass


def _raise_descriptor_limit() -> None:
    try:
        import resource  # not on Windows
    except ImportError:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
