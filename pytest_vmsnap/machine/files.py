"""Files to and from the guest."""

from __future__ import annotations

import io
import shlex
import tarfile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from pytest_vmsnap.errors import ChannelError
from pytest_vmsnap.machine.commands import Commands

if TYPE_CHECKING:
    from os import PathLike


class Files(Commands):
    """A machine's files. Paths in the guest are absolute."""

    def read_bytes(self, path: str) -> bytes:
        """The content of a file of the guest; raises `ChannelError` with the reason where it cannot be read."""
        __tracebackhide__ = True
        self._expect_usable()
        return self._channel.get(_absolute(path), timeout=self._deadlines.seconds(None))

    def read_text(self, path: str) -> str:
        """As `read_bytes`, as UTF-8; raises `UnicodeDecodeError` where it is none."""
        __tracebackhide__ = True
        return self.read_bytes(path).decode()

    def write_bytes(self, path: str, data: bytes, *, mode: int | None = None) -> None:
        """Write a file of the guest, with the permission bits `mode` (e.g. 0o755) where given.

        Raises `ChannelError` with the reason where it cannot be written.
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

        Where `remote` is a directory, the copy is made within it. What is copied belongs to root. Needs
        ``tar`` in the guest. Raises `FileNotFoundError` for a `local` that is not there, `ChannelError` that
        names both where the guest could not write it.
        """
        __tracebackhide__ = True
        self._expect_usable()
        source = Path(local)
        source.lstat()
        target = PurePosixPath(_absolute(remote))
        if self.run(f"[ -d {shlex.quote(remote)} ]").returncode == 0:
            target /= source.resolve().name
        result = self.run(["tar", "-xpf", "-", "-C", str(target.parent)], input=_packed(source, target.name))
        if result.returncode:
            raise ChannelError(
                f"{source} could not be written to {target} in the guest: {_words(result.stderr)}"
            )

    def download(self, remote: str, local: str | PathLike[str]) -> None:
        """Copy a file or a tree out of the guest, as ``cp -a remote local`` does: modes, times, symlinks kept.

        Where `local` is a directory, the copy is made within it. Needs ``tar`` in the guest. Raises
        `ChannelError` that names both where it could not be read, `OSError` where it could not be written.
        """
        __tracebackhide__ = True
        self._expect_usable()
        source, target = PurePosixPath(_absolute(remote)), Path(local)
        if target.is_dir():
            target /= source.name
        command = f"tar -cf - -C {shlex.quote(str(source.parent))} -- {shlex.quote(source.name)}"
        result = self.run(command)
        if result.returncode:
            raise ChannelError(f"{source} could not be read in the guest: {_words(result.stderr)}")
        _unpack(result.stdout, source.name, target)


def _absolute(path: str) -> str:
    if not path.startswith("/"):
        raise ValueError(f"a path in the guest is absolute, and {path!r} is not")
    return path


def _words(stderr: bytes) -> str:
    return stderr.decode(errors="replace").strip() or "no reason given"


def _packed(source: Path, name: str) -> bytes:
    """`source` as a tar archive in which it is called `name` and belongs to root."""

    def as_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = 0
        member.uname = member.gname = "root"
        return member

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.add(source, arcname=name, filter=as_root)
    return buffer.getvalue()


def _unpack(data: bytes, name: str, target: Path) -> None:
    """Unpack the archive's tree `name` as `target`; nothing is written outside of it.

    Raises `ChannelError` for what would be: the guest made the archive, and may not touch our files.
    """
    # Python 3.12 wants a filter, 3.11.3 and before know none; what they check is checked here
    options: dict[str, Any] = {"filter": "fully_trusted"} if hasattr(tarfile, "fully_trusted_filter") else {}
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        members = archive.getmembers()
        links = {PurePosixPath(member.name) for member in members if member.issym()}
        for member in members:
            path = PurePosixPath(member.name)
            if links & set(path.parents) or member.ischr() or member.isblk():
                raise ChannelError(f"{path} is not copied: it is a device, or lies behind a symlink")
            member.name = _renamed(path, name, target)
            if member.islnk():
                member.linkname = _renamed(PurePosixPath(member.linkname), name, target)
        archive.extractall(target.parent, members, **options)  # noqa: S202 - checked above


def _renamed(path: PurePosixPath, name: str, target: Path) -> str:
    if ".." in path.parts or path.parts[:1] != (name,):
        raise ChannelError(f"{path} is not copied: it is not below {name}")
    return str(PurePosixPath(target.name, *path.parts[1:]))
