"""Files of the guest: read with limits, replaced atomically, always below one root.

Paths are absolute *guest* paths such as ``/etc/hosts``. On the running machine the root is ``/``;
with another root (an unbooted image tree, a test) every component, symbolic links included, is
resolved inside that root, as chroot(2) would.

A file is replaced by writing a temporary file in the same directory, with its final mode and owner
from the first byte, then fsync(2), rename(2) and fsync(2) of the directory: a crash leaves the old
file or the new one, never a part. Left-overs carry the infix ``.google-`` and are removed by the
next write of the same file.

Directories that a user controls are not for this module: see ``system.homes``.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from pathlib import Path
from typing import ClassVar, Optional

from google_guest.places import LINUX, Places

DEFAULT_LIMIT = 1 << 20
"""Largest file that is read unless a caller says otherwise, in bytes."""

TEMPORARY_INFIX = ".google-"
_MAX_LINKS = 40
# Every platform has some of them.
_READING = os.O_RDONLY | sum(
    getattr(os, name, 0)
    for name in ("O_CLOEXEC", "O_NONBLOCK", "O_NOCTTY", "O_BINARY", "O_NOINHERIT")
)


class Files:
    """File access below ``root``. Every method takes absolute guest paths."""

    places: ClassVar[Places] = LINUX

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root
        self._is_live = root == Path("/")
        self._may_chown = os.geteuid() == 0 if hasattr(os, "geteuid") else False

    def host_path(self, path: str) -> str:
        """Return where the guest path ``path`` is on this host, its final link not followed."""
        if self._is_live:
            return path
        parent, name = os.path.split(path.rstrip("/"))
        if name in ("", ".", ".."):
            return self._resolve(path)
        return os.path.join(self._resolve(parent), name)

    def resolved(self, path: str) -> str:
        """Return the host path with every symbolic link followed inside the root."""
        return os.path.realpath(path) if self._is_live else self._resolve(path)

    def _resolve(self, path: str) -> str:
        done: list[str] = []
        pending = [part for part in path.split("/") if part]
        links = 0
        while pending:
            part = pending.pop(0)
            if part == ".":
                continue
            if part == "..":
                del done[-1:]
                continue
            here = os.path.join(str(self.root), *done, part)
            try:
                target = os.readlink(here)
            except OSError:
                done.append(part)
                continue
            links += 1
            if links > _MAX_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            if target.startswith("/"):
                done = []
            pending = [piece for piece in target.split("/") if piece] + pending
        return os.path.join(str(self.root), *done)

    def read_bytes(self, path: str, *, limit: int = DEFAULT_LIMIT) -> Optional[bytes]:
        """Return the content of a regular file, or None if there is no file.

        Raises:
            OSError: it cannot be read, is no regular file (EINVAL) or is over ``limit`` (EFBIG).
        """
        try:
            descriptor = os.open(self.resolved(path), _READING)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            facts = os.fstat(descriptor)
            if not stat.S_ISREG(facts.st_mode):
                raise OSError(errno.EINVAL, "not a regular file", path)
            chunks = []
            left = limit + 1
            while left > 0:
                chunk = os.read(descriptor, min(left, 1 << 16))
                if not chunk:
                    break
                chunks.append(chunk)
                left -= len(chunk)
            if left <= 0:
                raise OSError(errno.EFBIG, f"larger than {limit} bytes", path)
            return b"".join(chunks)
        finally:
            os.close(descriptor)

    def read_text(self, path: str, *, limit: int = DEFAULT_LIMIT) -> Optional[str]:
        """Return the content as text (UTF-8, a byte order mark dropped), or None; see above.

        Bytes that are not UTF-8 become the replacement character.
        """
        data = self.read_bytes(path, limit=limit)
        return None if data is None else data.decode("utf-8-sig", "replace")

    def exists(self, path: str) -> bool:
        """Return whether anything, a dangling link included, is at ``path``."""
        return os.path.lexists(self.host_path(path))

    def is_executable(self, path: str) -> bool:
        """Return whether ``path`` is a regular file with an execute bit."""
        facts = self.stat(path)
        return facts is not None and stat.S_ISREG(facts.st_mode) and bool(facts.st_mode & 0o111)

    def stat(self, path: str) -> Optional[os.stat_result]:
        """Return the facts of what ``path`` leads to, or None if there is nothing."""
        try:
            return os.stat(self.resolved(path))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def list_directory(self, path: str) -> tuple[str, ...]:
        """Return the sorted names in a directory; empty if there is none."""
        try:
            return tuple(sorted(os.listdir(self.resolved(path))))
        except (FileNotFoundError, NotADirectoryError):
            return ()

    def make_directory(self, path: str, *, mode: int = 0o755, uid: int = 0, gid: int = 0) -> None:
        """Create a directory and its missing parents; one that exists is left as it is."""
        if self.stat(path) is not None:
            return
        parent = os.path.dirname(path.rstrip("/"))
        if parent != "/" and self.stat(parent) is None:
            self.make_directory(parent)
        target = self.resolved(path)
        try:
            os.mkdir(target, mode & 0o700)
        except FileExistsError:
            return
        self._own(target, mode, uid, gid)

    def write_atomic(
        self, path: str, data: bytes, *, mode: int = 0o644, uid: int = 0, gid: int = 0
    ) -> None:
        """Replace ``path`` by a file with exactly this content, mode and owner.

        Missing parent directories are created with mode 0755. A symbolic link at ``path`` is
        replaced, not followed.

        Raises:
            OSError: nothing was changed.
        """
        parent, name = os.path.split(path)
        self.make_directory(parent)
        directory = os.open(self.resolved(parent), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._remove_leftovers(directory, name)
            temporary = f".{name}{TEMPORARY_INFIX}{os.urandom(6).hex()}"
            try:
                self._write_new(directory, temporary, data, mode=mode, uid=uid, gid=gid)
                os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
            except BaseException:
                _unlink_quietly(directory, temporary)
                raise
            os.fsync(directory)
        finally:
            os.close(directory)

    def rewrite(self, path: str, data: bytes, *, mode: int = 0o644) -> None:
        """Replace what ``path`` leads to, links followed, and keep owner, mode and attributes.

        ``mode`` is for a file that is not there yet.

        Raises:
            OSError: nothing was changed.
        """
        target = self.resolved(path)
        try:
            facts = os.stat(target)
        except FileNotFoundError:
            self.write_atomic(path, data, mode=mode)
            return
        parent, name = os.path.split(target)
        directory = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._remove_leftovers(directory, name)
            temporary = f".{name}{TEMPORARY_INFIX}{os.urandom(6).hex()}"
            try:
                self._write_new(
                    directory,
                    temporary,
                    data,
                    mode=stat.S_IMODE(facts.st_mode),
                    uid=facts.st_uid,
                    gid=facts.st_gid,
                )
                _copy_attributes(target, f"{parent}/{temporary}")
                os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
            except BaseException:
                _unlink_quietly(directory, temporary)
                raise
            os.fsync(directory)
        finally:
            os.close(directory)

    def overwrite(self, path: str, data: bytes) -> None:
        """Write into the file that ``path`` leads to, for one that no other can take the place of.

        Not atomic: a crash may leave a part. A file that is a mount of its own cannot be replaced.

        Raises:
            OSError: it is not there or cannot be written.
        """
        descriptor = os.open(self.resolved(path), os.O_WRONLY | os.O_CLOEXEC)
        try:
            _write_all(descriptor, data)
            os.ftruncate(descriptor, len(data))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def set_access(self, path: str, *, mode: int, uid: int = 0, gid: int = 0) -> None:
        """Give what ``path`` leads to this mode and owner."""
        self._own(self.resolved(path), mode, uid, gid)

    def lstat(self, path: str) -> Optional[os.stat_result]:
        """Return the facts of ``path`` itself, a final link not followed, or None."""
        try:
            return os.lstat(self.host_path(path))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _write_new(
        self, directory: int, name: str, data: bytes, *, mode: int, uid: int, gid: int
    ) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(name, flags, 0o600, dir_fd=directory)
        try:
            if self._may_chown:
                os.fchown(descriptor, uid, gid)
            os.fchmod(descriptor, mode)
            _write_all(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def remove(self, path: str) -> bool:
        """Remove a file or link; return whether there was one."""
        try:
            os.unlink(self.host_path(path))
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def remove_flat_directory(self, path: str, *, keep: str = "") -> None:
        """Remove the files in a directory but ``keep``, and the directory if it is empty then.

        A link at ``path`` is left alone.

        Raises:
            OSError: it holds a folder, or cannot be removed.
        """
        facts = self.lstat(path)
        if facts is None or not stat.S_ISDIR(facts.st_mode):
            return
        target = self.host_path(path)
        names = os.listdir(target)
        for name in names:
            if name != keep:
                os.unlink(os.path.join(target, name))
        if keep not in names:
            os.rmdir(target)

    def rename(self, source: str, target: str) -> None:
        """Rename within one directory tree and sync the target's directory."""
        os.rename(self.host_path(source), self.host_path(target))
        directory = os.open(
            self.resolved(os.path.dirname(target)), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        )
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def write_value(self, path: str, value: str) -> None:
        """Write to a kernel attribute (below /sys or /proc): one write(2), no temporary file."""
        descriptor = os.open(self.resolved(path), os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, value.encode())
        finally:
            os.close(descriptor)

    def _own(self, target: str, mode: int, uid: int, gid: int) -> None:
        if self._may_chown:
            os.chown(target, uid, gid, follow_symlinks=False)
        os.chmod(target, mode)

    def _remove_leftovers(self, directory: int, name: str) -> None:
        prefix = f".{name}{TEMPORARY_INFIX}"
        for entry in os.listdir(directory):
            if entry.startswith(prefix):
                _unlink_quietly(directory, entry)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _copy_attributes(source: str, target: str) -> None:
    """Copy extended attributes (SELinux labels, ACLs) where the file system has some."""
    if sys.platform != "linux":
        return
    try:
        names = os.listxattr(source)
    except OSError:
        return
    for name in names:
        try:
            os.setxattr(target, name, os.getxattr(source, name))
        except OSError as error:
            if error.errno not in (errno.ENOTSUP, errno.EPERM, errno.EACCES, errno.ENODATA):
                raise


def _unlink_quietly(directory: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=directory)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.EROFS):
            raise
