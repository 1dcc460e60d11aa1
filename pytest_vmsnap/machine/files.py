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
from pytest_vmsnap.guest import FileSink, Request, Source, content_of
from pytest_vmsnap.machine.commands import Commands
from pytest_vmsnap.machine.tar_source import data_of, file_pieces, packed
from pytest_vmsnap.machine.tar_target import Unpacking, move_into_place

if TYPE_CHECKING:
    from collections.abc import Iterator
    from os import PathLike

    from pytest_vmsnap.machine.tar_source import Sparse
    from pytest_vmsnap.progress import Step

SPACE_CHECK_BYTES = 16 << 20  # bytes from which on the free space in the guest is checked first
NAME = "x"  # of an uploaded tree in its archive
PAGE = 4096

# $1: the target; $2: the name of the copy if the target is a directory; $3: the name of a draft next to it.
FIND = r"""
[ ! -d "$1" ] || set -- "${1%/}/$2" "$2" "$3" "$4" "$5" "$6"
draft=${1%/*}/$3
"""
STAGE = """
mkdir -m 700 "$draft" && tar -xpf - -C "$draft" || exit
"""
# An existing tree is merged, as `cp -a` does.
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
# $4: the file in the draft; $5: the page that the data starts at.
FILL = """
dd of="$draft/$4" bs=4096 seek="$5" conv=notrunc 2>/dev/null
"""
# $4: the file in the draft; $5: its size in bytes; $6: its time, in seconds since the epoch.
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
    """A machine's files. Paths in the guest must be absolute; `ValueError` otherwise."""

    def read_bytes(self, path: str) -> bytes:
        """Return the content of a file in the guest.

        Raises `ChannelError` with the reason if the file cannot be read, or is larger than
        `vmsnap_output_limit`; `ValueError` if `path` is not absolute.
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
        """Like `read_bytes`, decoded as UTF-8; raises `UnicodeDecodeError` if the file is not UTF-8."""
        __tracebackhide__ = True
        return self.read_bytes(path).decode()

    def write_bytes(self, path: str, data: bytes, *, mode: int | None = None) -> None:
        """Write a file in the guest, optionally with the permission bits `mode` (e.g. 0o755).

        An older file stays until all data has arrived. Raises `ChannelError` with the reason if writing fails,
        `ValueError` if `path` is not absolute.
        """
        __tracebackhide__ = True
        self._expect_usable()
        self._channel.put(_absolute(path), data, timeout=self._deadlines.seconds(None))
        if mode is not None:
            self.run(f"chmod {mode:o} {shlex.quote(path)}", check=True)

    def write_text(self, path: str, text: str, *, mode: int | None = None) -> None:
        """Like `write_bytes`, encoded as UTF-8."""
        __tracebackhide__ = True
        self.write_bytes(path, text.encode(), mode=mode)

    def upload(self, local: str | PathLike[str], remote: str) -> None:
        """Copy a file or a tree into the guest, like ``cp -a local remote``: keeps modes, times and links.

        If `remote` is a directory, the copy goes into it. The copy belongs to root. Sparse files stay sparse,
        and nothing appears at the target before all data has arrived. Needs ``tar`` in the guest. Raises
        `FileNotFoundError` if `local` does not exist, `ChannelError` with both paths if the guest cannot write
        the copy, and `CommandTimeout` if no data moves within the option's timeout.
        """
        __tracebackhide__ = True
        self._expect_usable()
        source = Path(local)
        source.lstat()
        target = PurePosixPath(_absolute(remote))
        draft = f".vmsnap-{secrets.token_hex(4)}"
        with self._progress.step(f"copying {source} to {target} in {self._history.title}") as step:
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
                with suppress(VmsnapError):  # report the first error
                    self._send(FIND + REMOVE, words, b"", source, target)
                raise

    def _fill(
        self, files: tuple[Sparse, ...], words: tuple[str, ...], source: Path, target: PurePosixPath
    ) -> None:
        """Write the data of sparse files, which the archive left empty, with one command for each run."""
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
        result = self._run_request(request, None, shown=f"upload {source} to {target}")
        if result.returncode:
            raise ChannelError(
                f"{source} could not be written to {target} in the guest: {_words(result.stderr)}"
            )

    def _expect_room(self, source: Path, target: PurePosixPath, size: int) -> None:
        """Raise `ChannelError` if the guest has no room for `size` bytes; small sizes are not checked."""
        __tracebackhide__ = True
        if size < SPACE_CHECK_BYTES:
            return
        answer = self.run(_with_arguments(ROOM, (str(target),))).text.strip()
        if answer.isdigit() and int(answer) << 10 < size:
            raise ChannelError(
                f"{source} could not be written to {target} in the guest: it needs {size >> 20} MiB, and "
                f"only {int(answer) >> 10} MiB are free there"
            )

    def download(self, remote: str, local: str | PathLike[str]) -> None:
        """Copy a file or a tree out of the guest, like ``cp -a remote local``: keeps modes, times and links.

        If `local` is a directory, the copy goes into it. Sparse files stay sparse, and nothing appears at the
        target before all data has arrived. Leaves out set-user-ID and set-group-ID bits. Needs ``tar`` in the
        guest. Raises `ChannelError` if the guest cannot read the files, or if there is a device node among
        them; `OSError` if the host cannot write them; `CommandTimeout` if no data moves within the option's
        timeout.
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
            with self._progress.step(f"copying {source} in {self._history.title} to {target}") as step:
                self._fetch(source, target, staging, step)
            move_into_place(staging / source.name, target)
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def _fetch(self, source: PurePosixPath, target: Path, staging: Path, step: Step) -> None:
        """Unpack the guest's `source` into the directory `staging`."""
        __tracebackhide__ = True
        unpacking = Unpacking(source.name, staging, lambda size: step.say(f"{size >> 20} MiB"))
        script = _with_arguments(DOWNLOAD, (str(source.parent), source.name))
        request = Request(text=script, stdout=FileSink(unpacking.file), transfer=True)
        try:
            result = self._run_request(request, None, shown=f"download {source} to {target}")
        except BrokenPipeError:  # unpacking has failed
            result = None
        finally:
            unpacking.finish()
        if result and result.returncode:
            raise ChannelError(f"{source} could not be read in the guest: {_words(result.stderr)}")
        if isinstance(unpacking.failure, OSError | ChannelError):
            raise unpacking.failure
        if unpacking.failure or not result:
            raise ChannelError(
                f"{source} could not be downloaded: what tar in the guest sent cannot be unpacked: "
                f"{unpacking.failure}"
            )


def _absolute(path: str) -> str:
    if not path.startswith("/"):
        raise ValueError(f"{path!r} is not absolute: give an absolute path in the guest")
    if "\0" in path:
        raise ValueError(f"{path!r} contains a NUL, which no path can")
    return path


def _words(stderr: bytes) -> str:
    return stderr[-SHOWN_BYTES:].decode(errors="replace").strip() or "no reason given"


def _with_arguments(script: str, words: tuple[str, ...]) -> str:
    """Return `script` with `words` as its positional parameters."""
    return f"set -- {shlex.join(words)}\n{script}"


def _counted(source: Source, step: Step) -> Source:
    """Return `source`, with `step` showing how much of it has been sent."""

    def pieces() -> Iterator[bytes]:
        sent = 0
        for piece in source.open():
            yield piece
            sent += len(piece)
            if source.size >> 20:
                step.say(f"{sent >> 20} of {source.size >> 20} MiB")

    return Source(size=source.size, open=pieces)
