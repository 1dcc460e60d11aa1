"""What a state's snapshot is made from: its key is a hash over that."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_vmsnap.guest import planting_script
from pytest_vmsnap.model import digest
from pytest_vmsnap.states.inputs import inputs_digest
from pytest_vmsnap.states.source import source_parts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pytest_vmsnap.fork import Forge
    from pytest_vmsnap.guest import Access
    from pytest_vmsnap.model import Image, MachineSpec
    from pytest_vmsnap.states.declared import Declaration

FORMAT = 1  # of what a snapshot's entry holds


def base_parts(
    forge: Forge,
    *,
    spec: MachineSpec,
    image: Image,
    access: Access,
    prepare: Iterable[Callable[..., object]],
    root: Path,
) -> dict[str, Any]:
    """All that the base state of a machine of `spec` depends on, by name: plain data.

    `prepare` are the implementations of the hook that prepares it, in their order; `root` is the project's.
    """
    facts = forge.host.facts
    return {
        "format": FORMAT,
        "image": image.key,
        "image built": image.built,
        "spec": spec.as_dict(),
        "disks": [_identity(root, disk.source) for disk in spec.disks if disk.source],
        "machine": forge.outline(spec, image),
        "qemu": facts.qemu_version,
        "libvirt": facts.libvirt_version,
        "accelerator": facts.accelerator.name,
        "cpu": facts.guest_cpu,
        "channel": [access.channel, planting_script(), access.ssh.user, str(access.ssh.given)],
        "prepare": [source_parts(function, root) for function in prepare],
    }


def state_parts(declaration: Declaration, *, parent: str, root: Path) -> dict[str, Any]:
    """All that a state depends on, its parent's key among it. Raises `StateError` for its inputs."""
    return {
        "format": FORMAT,
        "parent": parent,
        "name": declaration.name,
        "source": source_parts(declaration.function, root),
        "inputs": inputs_digest(declaration),
    }


def key_of(parts: dict[str, Any]) -> str:
    """The key of what is made from `parts`."""
    return digest(parts)


def _identity(root: Path, written: str) -> list[object]:
    path = (root / Path(written).expanduser()).resolve()
    found = path.stat()
    return [str(path), found.st_size, found.st_mtime_ns]
