"""Reading and writing ``~/.ssh/authorized_keys`` as the user that owns it.

Everything below a home is under the user's control: at any moment a directory can become a
symbolic link, the file a FIFO, a temporary name a link to ``/etc/shadow``. So the file is written
by a process that first becomes the user for good (groups, gid, uid) and then walks with directory
descriptors and ``O_NOFOLLOW`` only. What the user could not have done alone cannot happen. It also
works on root-squashed NFS.

This file is both a module (the functions that ``system.homes`` uses to look and to compare) and a
program: started by ``system.commands.program_argv`` it reads one JSON document from its input,

    {"action": "write" | "read", "tasks": [{"name", "uid", "gid", "home", "keys", ...}]}

handles the users one after another, each in a process of its own with a time limit, and prints one
line of JSON for each. It imports nothing but the standard library, because it starts without any
module search path of the project. It is a separate program because a process with threads must
not change its user.

Source of the layout: guest-agent ``google_guest_agent/non_windows_accounts.go`` (the marker line);
open(2), credentials(7) for the rest.
"""

from __future__ import annotations

import binascii
import errno
import json
import os
import select
import signal
import stat
import sys
import time
from typing import Any, NamedTuple, Optional

MARKER = b"# Added by Google"
FILE = "authorized_keys"
LEFTOVER_PREFIX = ".authorized_keys.google-"
LARGEST_FILE = 1 << 20
USER_TIME_LIMIT = 10.0
"""Seconds for one user; a dead NFS server or a hung FUSE mount must not stop the others."""
BATCH_TIME_LIMIT = 45.0
"""Seconds after which no further user is begun."""
SKELETON = "/etc/skel"

UNCHANGED = "unchanged"
WRITTEN = "written"
REMOVED = "removed"
FAILED = "failed"

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Searching a directory needs no right to list it; FreeBSD's Python has no O_PATH.
_PATH = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Refused(Exception):
    """What is there must not be read or written; the message names it."""


class KeyFile(NamedTuple):
    """An authorized_keys file in two parts.

    No dataclass: their import alone would double the program's start.
    """

    own: bytes
    """The user's bytes, unchanged and in order."""
    google: tuple[bytes, ...] = ()
    """The lines behind markers."""
    markers: int = 0

    def holds(self, keys: tuple[bytes, ...]) -> bool:
        """Whether the Google part consists of exactly ``keys``, in whatever order."""
        return self.markers == len(self.google) and sorted(self.google) == sorted(keys)


def parse_key_file(content: bytes) -> KeyFile:
    """Return the parts of a file; a marker owns the next line unless that is blank or a marker."""
    own = []
    google = []
    markers = 0
    after_marker = False
    for line in _lines(content):
        bare = line[:-1] if line.endswith(b"\n") else line
        if bare == MARKER:
            markers += 1
            after_marker = True
            continue
        if after_marker and bare.strip():
            google.append(bare)
        else:
            own.append(line)
        after_marker = False
    return KeyFile(b"".join(own), tuple(google), markers)


def merge_keys(own: bytes, keys: tuple[bytes, ...]) -> bytes:
    """Return the file with ``keys`` behind the user's part, which gets a final LF if it has none.

    Without keys the user's part is returned as it is.
    """
    if not keys:
        return own
    if own and not own.endswith(b"\n"):
        own += b"\n"
    return own + b"".join(MARKER + b"\n" + key + b"\n" for key in keys)


def unterminated_mark(own: bytes) -> Optional[int]:
    """Return a mark to remember when ``own`` lacks its final LF, so that it can be given back."""
    from zlib import crc32

    return crc32(own) if own and not own.endswith(b"\n") else None


def without_added_lf(own: bytes, mark: Optional[int]) -> bytes:
    """Return ``own`` without its final LF if ``mark`` says that it had none before us."""
    if mark is not None and own.endswith(b"\n") and unterminated_mark(own[:-1]) == mark:
        return own[:-1]
    return own


def read_key_file(home: str, uid: int) -> Optional[bytes]:
    """Return the bytes of the home's authorized_keys, or None if there is none.

    Raises:
        Refused: something other than the user's own regular file is in its place.
        FileNotFoundError: the home does not exist.
        OSError: it cannot be read.
    """
    home_fd = _open_home(home)
    try:
        ssh_fd = _open_ssh(home_fd, uid)
        if ssh_fd is None:
            return None
        try:
            return _read(ssh_fd, uid)[0]
        finally:
            os.close(ssh_fd)
    finally:
        os.close(home_fd)


def update_key_file(
    home: str,
    uid: int,
    keys: tuple[bytes, ...],
    *,
    may_unlink: bool = False,
    unterminated: Optional[int] = None,
) -> str:
    """Give the Google part of the home's authorized_keys exactly ``keys``; return what was done.

    With ``may_unlink`` a file that is empty afterwards is removed. ``unterminated`` is what
    ``unterminated_mark`` returned before the first key was written.

    Raises:
        Refused, OSError: nothing was changed.
    """
    home_fd = _open_home(home)
    try:
        ssh_fd = _open_ssh(home_fd, uid, create=bool(keys))
        if ssh_fd is None:
            return UNCHANGED
        try:
            return _update(ssh_fd, uid, keys, may_unlink=may_unlink, unterminated=unterminated)
        finally:
            os.close(ssh_fd)
    finally:
        os.close(home_fd)


def become(uid: int, gid: int) -> None:
    """Become the user for good.

    Raises:
        Refused: the rights of before could be taken back.
    """
    if uid != 0 and os.getresuid() == (uid, uid, uid):
        # Nobody else's rights to give up.
        return
    os.setgroups([gid])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    if os.getresuid() != (uid, uid, uid) or os.getresgid() != (gid, gid, gid):
        raise Refused("the kernel did not change the user")
    if uid == 0:
        return
    try:
        os.setresuid(0, 0, 0)
    except OSError:
        return
    raise Refused("root's rights could be taken back")


def make_home(home: str, uid: int, gid: int) -> bool:
    """Make a missing home with mode 0750; return whether it was made.

    Raises:
        Refused: the directory above is not root's alone, so that what is made could be swapped.
    """
    parent, name = os.path.split(os.path.normpath(home))
    # The parent may be reached through links: /home -> /var/home on image-based systems.
    parent_fd = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        facts = os.fstat(parent_fd)
        if facts.st_uid != 0 or facts.st_mode & 0o022:
            raise Refused(f"{parent} is not writable for root alone, {home} is not made there")
        try:
            os.mkdir(name, 0o700, dir_fd=parent_fd)
        except FileExistsError:
            return False
        home_fd = os.open(name, _DIRECTORY, dir_fd=parent_fd)
        try:
            os.fchown(home_fd, uid, gid)
            os.fchmod(home_fd, 0o750)
        finally:
            os.close(home_fd)
    finally:
        os.close(parent_fd)
    return True


def copy_skeleton(home: str, skeleton: str = SKELETON) -> None:
    """Copy the files for new users; called as the user."""
    import shutil

    try:
        entries = list(os.scandir(skeleton))
    except FileNotFoundError:
        return
    for entry in entries:
        target = os.path.join(home, entry.name)
        if entry.is_dir(follow_symlinks=False):
            shutil.copytree(entry.path, target, symlinks=True)
        elif entry.is_symlink() or entry.is_file():
            shutil.copy2(entry.path, target, follow_symlinks=False)


def _lines(content: bytes) -> list[bytes]:
    # Not splitlines: a CR is a byte of the line like any other here.
    pieces = content.split(b"\n")
    lines = [piece + b"\n" for piece in pieces[:-1]]
    return [*lines, pieces[-1]] if pieces[-1] else lines


def _open_home(home: str) -> int:
    try:
        # A slash or dot at the end would make the kernel follow a link there after all.
        return os.open(os.path.normpath(home), _PATH)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise Refused(f"{home} is a symbolic link or no directory") from None
        raise


def _open_ssh(home_fd: int, uid: int, *, create: bool = False) -> Optional[int]:
    try:
        ssh_fd = os.open(".ssh", _DIRECTORY, dir_fd=home_fd)
    except FileNotFoundError:
        if not create:
            return None
        _make_ssh(home_fd, uid)
        ssh_fd = os.open(".ssh", _DIRECTORY, dir_fd=home_fd)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise Refused("~/.ssh is a symbolic link or no directory") from None
        raise
    facts = os.fstat(ssh_fd)
    if facts.st_uid != uid:
        os.close(ssh_fd)
        raise Refused(f"~/.ssh belongs to uid {facts.st_uid}, not to the user")
    if create and facts.st_mode & 0o022:
        # sshd refuses keys that others can write (StrictModes).
        os.fchmod(ssh_fd, stat.S_IMODE(facts.st_mode) & ~0o022)
    return ssh_fd


def _make_ssh(home_fd: int, uid: int) -> None:
    try:
        os.mkdir(".ssh", 0o700, dir_fd=home_fd)
    except FileExistsError:
        pass
    except PermissionError:
        owner = os.fstat(home_fd).st_uid
        if owner == uid:
            raise
        raise Refused(
            f"the home belongs to uid {owner} and not to the user (uid {uid});"
            " change its owner, or set [Accounts] reuse_homedir before the user is created"
        ) from None


def _read(ssh_fd: int, uid: int) -> tuple[Optional[bytes], int]:
    """Return content and permission bits; (None, 0o600) without a file."""
    try:
        descriptor = os.open(FILE, _FILE, dir_fd=ssh_fd)
    except FileNotFoundError:
        return None, 0o600
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise Refused(f"~/.ssh/{FILE} is a symbolic link or no regular file") from None
        raise
    try:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            raise Refused(f"~/.ssh/{FILE} is no regular file")
        if facts.st_uid not in (uid, 0):
            raise Refused(f"~/.ssh/{FILE} belongs to uid {facts.st_uid}, not to the user")
        if facts.st_size > LARGEST_FILE:
            raise Refused(f"~/.ssh/{FILE} is larger than {LARGEST_FILE} bytes")
        chunks: list[bytes] = []
        size = 0
        while size <= LARGEST_FILE:
            chunk = os.read(descriptor, 1 << 16)
            if not chunk:
                return b"".join(chunks), stat.S_IMODE(facts.st_mode)
            chunks.append(chunk)
            size += len(chunk)
        raise Refused(f"~/.ssh/{FILE} is larger than {LARGEST_FILE} bytes")
    finally:
        os.close(descriptor)


def _update(
    ssh_fd: int,
    uid: int,
    keys: tuple[bytes, ...],
    *,
    may_unlink: bool,
    unterminated: Optional[int],
) -> str:
    content, mode = _read(ssh_fd, uid)
    _remove_leftovers(ssh_fd)
    old = parse_key_file(content or b"")
    if old.holds(keys):
        return UNCHANGED
    own = old.own if keys else without_added_lf(old.own, unterminated)
    new = merge_keys(own, keys)
    if not new and may_unlink:
        os.unlink(FILE, dir_fd=ssh_fd)
        os.fsync(ssh_fd)
        return REMOVED
    # A mode that sshd accepts stays; one that lets others write keys does not.
    _replace(ssh_fd, new, mode if mode & ~0o644 == 0 and mode & 0o600 == 0o600 else 0o600)
    return WRITTEN


def _replace(ssh_fd: int, content: bytes, mode: int) -> None:
    temporary = LEFTOVER_PREFIX + os.urandom(8).hex()
    descriptor = os.open(temporary, _NEW_FILE, 0o600, dir_fd=ssh_fd)
    try:
        try:
            view = memoryview(content)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.rename(temporary, FILE, src_dir_fd=ssh_fd, dst_dir_fd=ssh_fd)
    except BaseException:
        os.unlink(temporary, dir_fd=ssh_fd)
        raise
    os.fsync(ssh_fd)


def _remove_leftovers(ssh_fd: int) -> None:
    """Remove what an interrupted write left; passes do not overlap, so nothing of it is in use."""
    for name in os.listdir(ssh_fd):
        if name.startswith(LEFTOVER_PREFIX):
            try:
                os.unlink(name, dir_fd=ssh_fd)
            except OSError as error:
                # A directory of that name is not ours.
                if error.errno not in (errno.ENOENT, errno.EISDIR, errno.EPERM):
                    raise


def _perform(action: str, task: dict[str, Any], *, new_home: bool) -> dict[str, Any]:
    """Do one user's part as that user; the process belongs to the user from here on."""
    if new_home:
        # Loaded as root: the user need not be able to read the interpreter's folder.
        import shutil  # noqa: F401
    become(task["uid"], task["gid"])
    os.umask(0o077)
    if action == "read":
        content = read_key_file(task["home"], task["uid"])
        text = None if content is None else binascii.b2a_base64(content, newline=False).decode()
        return {"status": UNCHANGED, "content": text}
    if new_home:
        copy_skeleton(task["home"])
    status = update_key_file(
        task["home"],
        task["uid"],
        tuple(key.encode() for key in task["keys"]),
        may_unlink=task.get("may_unlink", False),
        unterminated=task.get("unterminated"),
    )
    return {"status": status}


def _failure(error: Exception) -> dict[str, Any]:
    if isinstance(error, OSError):
        path = f" ({error.filename})" if isinstance(error.filename, str) else ""
        text = f"{error.strerror or error}{path}"
        return {"status": FAILED, "error": text, "errno": error.errno}
    text = str(error) if isinstance(error, Refused) else f"internal error: {error!r}"
    return {"status": FAILED, "error": text, "errno": None}


def _in_child(action: str, task: dict[str, Any]) -> dict[str, Any]:
    """Run one task in a process of its own and return its answer."""
    try:
        new_home = bool(task.get("make_home")) and make_home(task["home"], task["uid"], task["gid"])
    except (OSError, Refused) as error:
        return _failure(error)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reader)
            try:
                answer = _perform(action, task, new_home=new_home)
            except Exception as error:
                answer = _failure(error)
            with os.fdopen(writer, "wb") as stream:
                stream.write(json.dumps(answer).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    data = _read_until(reader, time.monotonic() + USER_TIME_LIMIT)
    os.close(reader)
    if data is None:
        os.kill(child, signal.SIGKILL)
        # A process that hangs in the kernel cannot be waited for; it ends when it can.
        os.waitpid(child, os.WNOHANG)
        return {
            "status": FAILED,
            "error": f"no answer within {USER_TIME_LIMIT:g} s",
            "errno": errno.ETIMEDOUT,
        }
    os.waitpid(child, 0)
    try:
        answer = json.loads(data)
    except ValueError:
        return {"status": FAILED, "error": "the writing process was killed", "errno": None}
    return dict(answer)


def _read_until(descriptor: int, deadline: float) -> Optional[bytes]:
    """Return everything up to the end, or None at the deadline (monotonic)."""
    chunks: list[bytes] = []
    while True:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([descriptor], [], [], left)[0]:
            return None
        chunk = os.read(descriptor, 1 << 16)
        if not chunk:
            return b"".join(chunks)
        chunks.append(chunk)


def main() -> int:
    """Handle the tasks on standard input; see the module's docstring."""
    request = json.load(sys.stdin)
    end = time.monotonic() + BATCH_TIME_LIMIT
    for task in request["tasks"]:
        if time.monotonic() > end:
            answer = {"status": FAILED, "error": "not reached in time", "errno": errno.ETIMEDOUT}
        else:
            answer = _in_child(request["action"], task)
        print(json.dumps({"name": task["name"], **answer}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
