"""Files to and from the guest."""

from __future__ import annotations

import errno
import secrets
import shlex
import shutil
import tempfile
from contextlib import suppress
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import SHOWN_BYTES, ChannelError, VmsnapError
from pytest_vmsnap.guest import Request, Source, Written, content_of
from pytest_vmsnap.machine.commands import Commands
from pytest_vmsnap.machine.tar_source import data_of, file_pieces, packed
from pytest_vmsnap.machine.tar_target import Unpacking, move_into_place

if TYPE_CHECKING:
    from collections.abc import Iterator
    from os import PathLike

    from pytest_vmsnap.machine.tar_source import Sparse
    from pytest_vmsnap.progress import Step

ASKED_FOR = 16 << 20  # bytes for which it is asked whether the guest has room
NAME = "x"  # of a tree in its archive
PAGE = 4096

# $1: where to; $2: the name that it has in a directory; $3: the name beside its place that it is unpacked to.
FIND = r"""
[ ! -d "$1" ] || set -- "${1%/}/$2" "$2" "$3" "$4" "$5" "$6"
draft=${1%/*}/$3
"""
STAGE = """
mkdir -m 700 "$draft" && tar -xpf - -C "$draft" || exit
"""
# A tree that is there already is merged, as `cp -a` does it.
PLACE = f"""
if [ -L "$1" ]; then rm -f "$1"; fi
if [ ! -d "$1" ]; then mv -f "$draft/{NAME}" "$1" || exit
elif [ ! -d "$draft/{NAME}" ]; then echo "$1 is a directory" >&2; exit 1
else cp -alf "$draft/{NAME}/." "$1/" 2>/dev/null || cp -af "$draft/{NAME}/." "$1/" || exit
fi
"""
REMOVE = """
rm -rf "$draft"
"""
# $4: the file within; $5: the page that the data goes to.
FILL = """
dd of="$draft/$4" bs=4096 seek="$5" conv=notrunc 2>/dev/null
"""
# $4: the file within; $5: its size; $6: its time, in seconds since the epoch.
END_FILL = """
truncate -s "$5" "$draft/$4" && touch -d "@$6" "$draft/$4"
"""
ROOM = r"""
place=$1
[ -d "$place" ] || place=${place%/*}/
LC_ALL=C df -Pk "$place" | { read -r _; read -r _ _ _ free _; echo "$free"; }
"""
IS_GNU = "tar --version 2>/dev/null | grep -q GNU"
DOWNLOAD = f"""
holes=
if {IS_GNU}; then holes=S; fi
exec tar "-c${{holes}}f" - -C "$1" -- "$2"
"""


class Files(Commands):
    """A machine's files. Paths in the guest are absolute."""

    def read_bytes(self, path: str) -> bytes:
        """The content of a file of the guest.

        Raises `ChannelError` with the reason where it cannot be read, or where it is more than is kept in
        memory (`vmsnap_output_limit`).
        """
        __tracebackhide__ = True
        self._expect_usable()
        return content_of(
            self._channel,
            _absolute(path),
            timeout=self._deadlines.seconds(None),
            limit=self._deadlines.output,
            hint=f"fetch it with vm.download({path!r}, ...), or raise vmsnap_output_limit",
        )

    def read_text(self, path: str) -> str:
        """As `read_bytes`, as UTF-8; raises `UnicodeDecodeError` where it is none."""
        __tracebackhide__ = True
        return self.read_bytes(path).decode()

    def write_bytes(self, path: str, data: bytes, *, mode: int | None = None) -> None:
        """Write a file of the guest, with the permission bits `mode` (e.g. 0o755) where given.

        What was there stays until all of it has arrived. Raises `ChannelError` with the reason where it cannot
        be written.
        """
        __tracebackhide__ = True
        self._expect_usable()
        self._channel.put(_absolute(path), data, timeout=self._deadlines.seconds(None))
        if mode is not None:
            self.run(f"chmod {mode:o} {shlex.quote(path)}", check=True)

    def write_text(self, path: str, text: str, *, mode: int | None = None) -> None:
        """As `write_bytes`, as UTF-8."""
        __tracebackhide__ = True
        self.write_bytes(path, text.encode(), mode=mode)

    def upload(self, local: str | PathLike[str], remote: str) -> None:
        """Copy a file or a tree into the guest, as ``cp -a local remote`` does: modes, times, symlinks kept.

        Where `remote` is a directory, the copy is made within it. What is copied belongs to root, holes stay
        holes, and nothing is at its place before all of it has arrived. The option's time-out begins anew
        whenever bytes move. Needs ``tar`` in the guest. Raises `FileNotFoundError` for a `local` that is not
        there, `ChannelError` that names both where the guest could not write it.
        """
        __tracebackhide__ = True
        self._expect_usable()
        source = Path(local)
        source.lstat()
        target = PurePosixPath(_absolute(remote))
        draft = f".vmsnap-{secrets.token_hex(4)}"
        with self._progress.step(f"copying {source} to {target} in {self.name}") as step:
            tree = packed(source, NAME, with_holes=True)
            knows_holes = not tree.sparse or self.run(IS_GNU).returncode == 0
            if not knows_holes:
                tree = packed(source, NAME, with_holes=False)
            self._expect_room(source, target, tree.disk_size)
            words = (str(target), source.resolve().name, draft)
            archive = _counted(tree.archive, step)
            try:
                if knows_holes:
                    self._send(FIND + STAGE + PLACE + REMOVE, words, archive, source, target)
                else:
                    self._send(FIND + STAGE, words, archive, source, target)
                    self._fill(tree.sparse, words, source, target)
                    self._send(FIND + PLACE + REMOVE, words, b"", source, target)
            except (VmsnapError, OSError):
                with suppress(VmsnapError):  # the first error is the one that counts
                    self._send(FIND + REMOVE, words, b"", source, target)
                raise

    def _fill(
        self, files: tuple[Sparse, ...], words: tuple[str, ...], source: Path, target: PurePosixPath
    ) -> None:
        """Write the data of sparse files, which are empty until now, with a command for each run."""
        for each in files:
            found = each.path.stat()
            for start, end in data_of(each.path, each.size):
                first = start // PAGE * PAGE
                data = Source(size=end - first, open=partial(file_pieces, each.path, first, end))
                place = (*words, each.name, str(first // PAGE))
                self._send(FIND + FILL, place, data, source, target)
            place = (*words, each.name, str(each.size), str(int(found.st_mtime)))
            self._send(FIND + END_FILL, place, b"", source, target)

    def _send(
        self, script: str, words: tuple[str, ...], data: bytes | Source, source: Path, target: PurePosixPath
    ) -> None:
        __tracebackhide__ = True
        request = Request(text=_with_arguments(script, words), input=data, transfer=True)
        result = self._performed(request, None, shown=f"upload {source} to {target}")
        if result.returncode:
            raise ChannelError(
                f"{source} could not be written to {target} in the guest: {_words(result.stderr)}"
            )

    def _expect_room(self, source: Path, target: PurePosixPath, size: int) -> None:
        """Raise `ChannelError` where the guest has no room for so many bytes, if they are many."""
        __tracebackhide__ = True
        if size < ASKED_FOR:
            return
        answer = self.run(_with_arguments(ROOM, (str(target),))).text.strip()
        if answer.isdigit() and int(answer) << 10 < size:
            raise ChannelError(
                f"{source} could not be written to {target} in the guest: it needs {size >> 20} MiB, and "
                f"{int(answer) >> 10} MiB are free there"
            )

    def download(self, remote: str, local: str | PathLike[str]) -> None:
        """Copy a file or a tree out of the guest, as ``cp -a remote local`` does: modes, times, symlinks kept.

        Where `local` is a directory, the copy is made within it. Holes stay holes, and nothing is at its place
        before all of it has arrived; set-user-ID bits and devices are left out. The option's time-out begins
        anew whenever bytes move. Needs ``tar`` in the guest. Raises `ChannelError` that names both where it
        could not be read, `OSError` where it could not be written.
        """
        __tracebackhide__ = True
        self._expect_usable()
        source, target = PurePosixPath(_absolute(remote)), Path(local)
        if target.is_dir():
            target /= source.name
        if not target.parent.is_dir():
            raise FileNotFoundError(errno.ENOENT, "there is no such directory", str(target.parent))
        staging = Path(tempfile.mkdtemp(prefix=f".{target.name[:100]}.vmsnap-", dir=target.parent))
        try:
            with self._progress.step(f"copying {source} in {self.name} to {target}") as step:
                self._fetch(source, target, staging, step)
            move_into_place(staging / source.name, target)
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def _fetch(self, source: PurePosixPath, target: Path, staging: Path, step: Step) -> None:
        """Unpack what is at `source` in the guest into the directory `staging`."""
        __tracebackhide__ = True
        unpacking = Unpacking(source.name, staging, lambda size: step.say(f"{size >> 20} MiB"))
        script = _with_arguments(DOWNLOAD, (str(source.parent), source.name))
        request = Request(text=script, stdout=Written(unpacking.file), transfer=True)
        try:
            result = self._performed(request, None, shown=f"download {source} to {target}")
        except BrokenPipeError:  # it could not be unpacked
            result = None
        finally:
            unpacking.finish()
        if result and result.returncode:
            raise ChannelError(f"{source} could not be read in the guest: {_words(result.stderr)}")
        if isinstance(unpacking.failure, OSError | ChannelError):
            raise unpacking.failure
        if unpacking.failure or not result:
            raise ChannelError(f"{source} could not be read in the guest: tar sent {unpacking.failure}")


def _absolute(path: str) -> str:
    if not path.startswith("/"):
        raise ValueError(f"a path in the guest is absolute, and {path!r} is not")
    if "\0" in path:
        raise ValueError(f"a path cannot have a NUL, and {path!r} has one")
    return path


def _words(stderr: bytes) -> str:
    return stderr[-SHOWN_BYTES:].decode(errors="replace").strip() or "no reason given"


def _with_arguments(script: str, words: tuple[str, ...]) -> str:
    """`script` with `words` as its positional parameters."""
    return f"set -- {shlex.join(words)}\n{script}"


def _counted(source: Source, step: Step) -> Source:
    """`source`, with what has been sent of it shown by `step`."""

    def pieces() -> Iterator[bytes]:
        sent = 0
        for piece in source.open():
            yield piece
            sent += len(piece)
            step.say(f"{sent >> 20} of {source.size >> 20} MiB")

    return Source(size=source.size, open=pieces)
