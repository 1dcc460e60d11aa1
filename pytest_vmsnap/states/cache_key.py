"""The keys of states: each is a hash of everything that the state's snapshot depends on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_vmsnap.guest import install_script
from pytest_vmsnap.model import digest
from pytest_vmsnap.states.function_source import source_parts
from pytest_vmsnap.states.input_files import inputs_digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from pytest_vmsnap.fork import DomainFactory
    from pytest_vmsnap.guest import ChannelFactory
    from pytest_vmsnap.model import Image, MachineSpec
    from pytest_vmsnap.states.declarations import Declaration

FORMAT = 1  # of a snapshot's entry in the store
HIDDEN = "digest "
SHOWN = (
    *("format", "image", "qemu", "libvirt", "accelerator", "cpu"),
    *(f"spec.{name}" for name in ("memory", "cpus", "network", "firmware", "tpm", "screen")),
)
LONGEST_SHOWN = 60  # characters of a part of a key; a longer one is shown as its digest
STATE_FORMAT = 2  # of one that is saved while it runs: 2 has the firmware


def base_parts(
    factory: DomainFactory,
    *,
    spec: MachineSpec,
    image: Image,
    channel_factory: ChannelFactory,
    prepare: Iterable[Callable[..., object]],
    root: Path,
) -> dict[str, Any]:
    """Everything that the base state of a machine of `spec` depends on: plain data by name.

    `prepare` are the implementations of ``pytest_vmsnap_prepare``, in order; `root` is the project's root.
    Raises as `login_parts` does.
    """
    facts = factory.host.facts
    return {
        "format": FORMAT,
        "image": image.key,
        "image built": image.built,
        "spec": spec.as_dict(),
        "disks": [_identity(root, disk.source) for disk in spec.disks if disk.source],
        "firmware": factory.firmware_digest(image),
        "machine": factory.normalized_xml(spec, image),
        "qemu": facts.qemu_version,
        "libvirt": facts.libvirt_version,
        "accelerator": facts.accelerator.name,
        "cpu": facts.guest_cpu,
        "channel": [channel_factory.channel, install_script()],
        "ssh login": login_parts(channel_factory),
        "prepare": [source_parts(function, root) for function in prepare],
    }


def login_parts(channel_factory: ChannelFactory) -> list[str]:
    """The user and the public key that the SSH channel needs in the guest; empty with other channels.

    The guest of a state lets only this key in. Raises `SpecError` if the key cannot be read, `HostError` if
    paramiko is missing.
    """
    ssh = channel_factory.ssh
    return [ssh.user, ssh.public()] if channel_factory.channel == "ssh" else []


def state_parts(declaration: Declaration, *, parent: str, root: Path) -> dict[str, Any]:
    """Everything that a state depends on, including its parent's key: plain data by name.

    Raises `StateError` if a glob of its inputs matches nothing.
    """
    return {
        "format": STATE_FORMAT,
        "parent": parent,
        "name": declaration.name,
        "source": source_parts(declaration.function, root),
        "inputs": inputs_digest(declaration),
    }


def key_parts(parts: Mapping[str, Any]) -> dict[str, str]:
    """What `parts` consist of, to compare with another host's, by name: values that may be shown, else digests.

    What is made of named parts itself, such as the specification, has a name for each: ``spec.memory``. A
    constant of the project or an address may be secret.
    """
    found: dict[str, str] = {}
    for name, part in parts.items():
        if isinstance(part, list) and part and all(isinstance(each, dict) for each in part):
            part = {inner: text for each in part for inner, text in each.items()}
        if isinstance(part, dict):
            found |= {f"{name}.{inner}": _shown(f"{name}.{inner}", value) for inner, value in part.items()}
        else:
            found[name] = _shown(name, part)
    return found


def differences(there: Mapping[str, str], here: Mapping[str, str]) -> list[str]:
    """What differs between the key parts of two states, a text for each; empty if the states are the same."""
    found = []
    for name in dict.fromkeys([*here, *there]):
        one, other = there.get(name), here.get(name)
        if one == other:
            continue
        if one is None or other is None:
            found.append(f"{name} is {'gone' if other is None else 'new'}")
        elif one.startswith(HIDDEN) and other.startswith(HIDDEN):
            found.append(f"{name} differs")
        else:
            found.append(f"{name} is {one}, not {other}")
    return found


def _shown(name: str, value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    may_show = name in SHOWN and len(text) <= LONGEST_SHOWN and "\n" not in text
    return text if may_show else HIDDEN + digest({"text": text})


def key_of(parts: dict[str, Any]) -> str:
    """The key of a state that depends on `parts`."""
    return digest(parts)


def _identity(root: Path, written: str) -> list[object]:
    path = (root / Path(written).expanduser()).resolve()
    found = path.stat()
    return [str(path), found.st_size, found.st_mtime_ns]
