"""``gooserve``: serve a folder or bucket of packages as a repository, or write its index.

``gooserve [-root ROOT] [-package_path packages] [-repo_name repo] [-address A] [-port 8000]``
``[-interval 5m] [-dump_index | -save_index] [-tls_cert F -tls_key F] [-sign_key F] [-verbose]``

ROOT is a folder (the current one by default) or an address in Cloud Storage. ``-dump_index`` prints
the index, ``-save_index`` writes it into ROOT/REPO_NAME, from where any web server can serve it.
Exit status: 0 done, 1 failed, 2 wrong usage.

Facts: googet: server/gooserve.go (flags and defaults).
"""

from __future__ import annotations

import contextlib
import logging
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Optional

from googet import logbook
from googet.buckets import BucketRepository
from googet.cli.flags import Arguments, Flags, HelpRequested, UsageError
from googet.host import current_host
from googet.publishing import Layout, Scanner, Signer, layout, save
from googet.screen import prepare_streams
from googet.server import Index, RepositoryServer, tls_context
from googet.settings import Settings
from googet.signing import LIFETIME
from googet.transport import Transport
from googet.urls import parse_storage
from google_guest.errors import GuestError
from google_guest.records import record

OK, FAILED, WRONG_USAGE = 0, 1, 2
_LARGEST_PORT = 65535


@record
class Source:
    """Where the packages are: a folder, which is a mirror if there is a bucket."""

    root: Path
    layout: Layout
    bucket: Optional[BucketRepository]


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command line and return the exit status."""
    prepare_streams()
    flags = command_flags()
    try:
        arguments = flags.parse(sys.argv[1:] if argv is None else argv)
        _check(arguments)
    except HelpRequested:
        print(flags.usage(), end="")
        return OK
    except UsageError as error:
        print(f"{error}\n{flags.usage()}", end="", file=sys.stderr)
        return WRONG_USAGE
    book = logbook.configure(None, current_host(), verbose=arguments.flag("verbose"))
    if arguments.flag("system_log"):
        logging.getLogger().addHandler(logbook.SystemLogHandler(current_host()))
    try:
        with _source(arguments) as source:
            _run(arguments, source)
    except GuestError as error:
        print(f"gooserve: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return OK
    finally:
        book.close()
    return OK


def command_flags() -> Flags:
    """Return the flags of the program."""
    flags = Flags("gooserve [flags]")
    flags.string("root", "folder or Cloud Storage address (gs://BUCKET/...) of the repository")
    flags.string("package_path", "folder of the packages below the root", default="packages")
    flags.string("repo_name", "name of the repository", default="repo")
    flags.string("address", "address to listen on (default: all)")
    flags.integer("port", "port to listen on", default=8000)
    flags.duration("interval", "time between looks at the packages", default="5m")
    flags.boolean("dump_index", "print the index and end")
    flags.boolean("save_index", "write the index to ROOT/REPO_NAME and end")
    flags.string("tls_cert", "file of the certificate chain (PEM): serve https")
    flags.string("tls_key", "file of the certificate's private key (PEM)")
    flags.string("sign_key", "file of the RSA private key (PEM) that signs the index")
    flags.duration("sign_lifetime", "how long a signature is valid", default=f"{LIFETIME // 3600}h")
    flags.boolean("verbose", "print what happens")
    flags.boolean("system_log", "log to the system's log, too")
    return flags


def _check(arguments: Arguments) -> None:
    if arguments.positionals:
        hint = "; -save_index takes no path" if arguments.flag("save_index") else ""
        raise UsageError(f"unexpected argument {arguments.positionals[0]!r}{hint}")
    if not 0 <= arguments.integer("port") <= _LARGEST_PORT:
        raise UsageError(f"there is no port {arguments.integer('port')}")
    if arguments.seconds("interval") <= 0 or arguments.seconds("sign_lifetime") < 1:
        raise UsageError("-interval and -sign_lifetime must be positive")
    if bool(arguments.text("tls_cert")) != bool(arguments.text("tls_key")):
        raise UsageError("-tls_cert and -tls_key belong together")
    if arguments.flag("dump_index") and arguments.flag("save_index"):
        raise UsageError("-dump_index and -save_index exclude each other")


@contextlib.contextmanager
def _source(arguments: Arguments) -> Iterator[Source]:
    where = layout(arguments.text("package_path"), arguments.text("repo_name"))
    location = parse_storage(arguments.text("root"))
    if location is None:
        yield Source(Path(arguments.text("root") or "."), where, None)
        return
    with tempfile.TemporaryDirectory(prefix="gooserve-") as folder:
        bucket = BucketRepository(location, where, Transport(Settings()), Path(folder))
        yield Source(Path(folder), where, bucket)


def _run(arguments: Arguments, source: Source) -> None:
    scanner = Scanner(source.root, source.layout)
    key = arguments.text("sign_key")
    signer = Signer(Path(key), int(arguments.seconds("sign_lifetime"))) if key else None
    index = Index(scanner, bucket=source.bucket, signer=signer)
    index.refresh()
    if arguments.flag("dump_index"):
        _print(index.files["index"])
    elif arguments.flag("save_index"):
        _save(source, index)
    else:
        _serve(arguments, source, scanner, index)


def _save(source: Source, index: Index) -> None:
    if source.bucket is not None:
        print(f"wrote {source.bucket.save(index.files)}")
    else:
        print(f"wrote {save(source.root, source.layout, index.files)}")


def _serve(arguments: Arguments, source: Source, scanner: Scanner, index: Index) -> None:
    certificate, key = arguments.text("tls_cert"), arguments.text("tls_key")
    server = RepositoryServer(
        index,
        scanner.folder,
        source.layout,
        address=arguments.text("address"),
        port=arguments.integer("port"),
        interval=arguments.seconds("interval"),
        tls=tls_context(Path(certificate), Path(key)) if certificate else None,
    )
    where = "" if arguments.text("address") else ", on all addresses of this machine"
    print(f"gooserve: serving {server.url}{where}", file=sys.stderr, flush=True)
    server.serve()


def _print(data: bytes) -> None:
    """Write UTF-8 without a byte order mark, whatever the console's encoding."""
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
