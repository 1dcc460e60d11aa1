"""The table of options."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, get_args

from pytest_vmsnap.model import (
    Accel,
    Artifacts,
    ChannelName,
    Entropy,
    Firmware,
    Missing,
    Network,
    Order,
    Revert,
    Verify,
)
from pytest_vmsnap.model.settings import STANDBY_CEILING
from pytest_vmsnap.model.spec import CPUS_CEILING, MEMORY_MIB_FLOOR
from pytest_vmsnap.options import values
from pytest_vmsnap.options.option import Option
from pytest_vmsnap.registry.address import ALLOWED as REGISTRY

if TYPE_CHECKING:
    from collections.abc import Mapping


def _choice(name: str, choices: tuple[str, ...], default: str, help: str) -> Option:  # noqa: A002 - as argparse
    parse = values.one_of(choices)
    return Option(name=name, parse=parse, allowed=", ".join(choices), default=default, help=help)


OPTIONS: tuple[Option, ...] = (
    Option(
        name="image",
        parse=values.image,
        make_absolute=values.image_text,
        default="debian:trixie",
        allowed="a path, an http(s):// URL, debian:SUITE, a name such as ubuntu:24.04, or none (no disk)",
        help="the base image, which is never written to",
    ),
    Option(
        name="image_sha256",
        parse=values.sha256,
        allowed="64 hexadecimal digits",
        help="the SHA-256 digest of an image that is a URL",
    ),
    Option(
        name="image_mirror",
        parse=values.address,
        allowed="an http(s):// URL; none: the vendors' own servers",
        help="a mirror of vendors' images, with their servers as directories",
    ),
    Option(
        name="packages",
        parse=values.texts,
        default=(),
        multiple=True,
        allowed="names, separated by commas or new lines",
        help="more packages for an image debian:SUITE",
    ),
    Option(
        name="kernel",
        parse=values.text,
        make_absolute=values.path_text,
        allowed="a path",
        help="a kernel to boot directly",
    ),
    Option(
        name="initrd",
        parse=values.text,
        make_absolute=values.path_text,
        allowed="a path",
        help="the initrd for the kernel",
    ),
    Option(name="cmdline", parse=values.text, allowed="text", help="the kernel's command line"),
    Option(
        name="modules",
        parse=values.text,
        make_absolute=values.path_text,
        allowed="a directory with lib/modules/RELEASE, as modules_install writes it",
        help="the modules of the kernel",
    ),
    Option(
        name="memory",
        parse=values.size(MEMORY_MIB_FLOOR),
        default=512,
        allowed=f"MiB, or a number with a unit such as 2G; at least {MEMORY_MIB_FLOOR} MiB",
        help="the machine's memory",
    ),
    Option(
        name="cpus",
        parse=values.number(1, CPUS_CEILING),
        allowed=f"a whole number from 1 to {CPUS_CEILING}; none: 2, or 1 if QEMU cannot emulate 2 well",
        help="the machine's virtual processors",
    ),
    Option(
        name="cpu",
        parse=values.cpu_model,
        default="host",
        allowed="host, x86-64-v2, x86-64-v3, x86-64-v4, or a model of `virsh cpu-models x86_64`",
        help="the processor that the machine sees; a named one makes states that other hosts can use",
    ),
    _choice(
        "network",
        get_args(Network),
        "user",
        "the machine's network: out through the host, port forwards only, or none",
    ),
    Option(
        name="firmware",
        parse=values.one_of(get_args(Firmware)),
        allowed=f"{', '.join(get_args(Firmware))}; none: uefi if the image boots with nothing else, else bios",
        help="what boots the machine",
    ),
    Option(
        name="uri",
        parse=values.text,
        allowed="a libvirt URI, e.g. qemu:///session",
        help="the libvirt that runs the machines, instead of the default for the user",
    ),
    _choice(
        "accel",
        get_args(Accel),
        "auto",
        "the accelerator: KVM, software emulation (tcg), or KVM if it works (auto)",
    ),
    _choice("channel", get_args(ChannelName), "shell", "how commands reach the machine"),
    _choice("revert", get_args(Revert), "always", "when a test gets a clean machine"),
    _choice(
        "missing",
        get_args(Missing),
        "fail",
        "what happens to tests that need a machine if the host cannot run one",
    ),
    Option(
        name="standby",
        parse=values.number_or_auto(0, STANDBY_CEILING),
        allowed=f"a whole number from 0 to {STANDBY_CEILING}; auto or none: as processors and memory allow",
        help="how many machines to make ahead for the next tests",
    ),
    _choice(
        "entropy",
        get_args(Entropy),
        "require",
        "what to do if all machines of a state would draw the same random numbers: fail, or warn",
    ),
    _choice(
        "verify",
        get_args(Verify),
        "none",
        "what to check: that each machine is unused (nonce), also that vm_readonly tests change nothing "
        "(audit)",
    ),
    Option(
        name="timeout",
        parse=values.positive,
        default=60.0,
        allowed="a number of seconds above 0",
        help="the timeout of a command in the guest",
    ),
    Option(
        name="timeout_factor",
        parse=values.positive_or_none,
        allowed="a number above 0; none: 1 with KVM, 3 with TCG",
        help="a factor for every deadline",
    ),
    Option(
        name="output_limit",
        parse=values.size(1),
        default=64,
        allowed="MiB, or with a unit as in 1G",
        help="how much of a command's output, or of a file, to keep in memory; more is an error",
    ),
    _choice("order", get_args(Order), "state", "whether tests of the same state run one after another"),
    Option(
        name="shard",
        parse=values.shard,
        allowed="I/N, with I from 1 to N",
        help="which part of the tests to run, of the N that as many jobs run",
    ),
    Option(
        name="store",
        parse=values.text,
        make_absolute=values.path,
        allowed="a directory; none: the user's cache directory",
        help="the directory of images and snapshots",
    ),
    Option(
        name="store_limit",
        parse=values.size(1),
        default=20480,
        allowed="MiB, or with a unit as in 20G",
        help="the maximum size of the snapshots in the store",
    ),
    Option(
        name="system_store",
        parse=values.text_or_none,
        make_absolute=values.path,
        default=Path("/var/lib/pytest-vmsnap"),
        allowed="a directory, or none",
        help="states that all users of this host share; `vmsnap share` adds to it",
    ),
    Option(
        name="registry",
        parse=values.registry,
        allowed=REGISTRY,
        help="a registry to pull states and images from that are missing in the store",
    ),
    Option(
        name="push",
        parse=values.switch,
        default=False,
        allowed="on or off",
        help="push the states that the run uses and did not pull to the registry, with their images",
        command_line_only=True,
        switch=True,
    ),
    Option(
        name="refresh",
        parse=values.switch,
        default=False,
        allowed="on or off",
        help="rebuild every state that is used, and the image",
        command_line_only=True,
        switch=True,
    ),
    Option(
        name="refresh_state",
        parse=values.texts,
        default=(),
        multiple=True,
        allowed="names, separated by commas or one at a time",
        help="states to rebuild, together with those made from them",
        command_line_only=True,
    ),
    Option(
        name="console_user",
        parse=values.text,
        allowed="a user of the guest; none: use only a shell that is already running there",
        help="the user to log in as on the serial console, if nothing else can install the guest shell",
    ),
    Option(
        name="console_password",
        parse=values.text,
        allowed="a password",
        help="the password of that user",
        secret=True,
    ),
    Option(
        name="ssh_user",
        parse=values.text,
        allowed="a user of the guest, with sudo unless it is root; none: root",
        help="the user for SSH",
    ),
    Option(
        name="ssh_key",
        parse=values.text,
        make_absolute=values.path,
        allowed="a private key that the image accepts; none: create one in the store, and install it",
        help="the key for SSH",
    ),
    _choice(
        "artifacts",
        get_args(Artifacts),
        "failed",
        "for which tests to keep artifacts (console, commands, journal, screen)",
    ),
    Option(
        name="artifacts_dir",
        parse=values.text,
        make_absolute=values.path,
        default=Path("vmsnap-artifacts"),
        allowed="a directory",
        help="the directory of the artifacts, with a subdirectory for each test",
    ),
    Option(
        name="keep",
        parse=values.number_or_failed,
        default=0,
        allowed="failed, or how many to keep at most",
        help="which machines of failed tests to keep for `vmsnap open`",
        command_line_only=True,
    ),
    Option(
        name="keep_limit",
        parse=values.size(1),
        default=5120,
        allowed="MiB, or with a unit as in 5G",
        help="the maximum size of all kept machines; the oldest is removed first",
    ),
    Option(
        name="keep_days",
        parse=values.number(1, None),
        default=14,
        allowed="a whole number of at least 1",
        help="for how many days to keep a machine",
    ),
    Option(
        name="pause",
        parse=values.switch,
        default=False,
        allowed="on or off",
        help="keep the machine of a failed test running, and show how to connect",
        command_line_only=True,
        switch=True,
    ),
    Option(
        name="timings",
        parse=values.switch,
        default=False,
        allowed="on or off",
        help="show the time of building and reverting, by state and by test",
        command_line_only=True,
        switch=True,
    ),
)

BY_NAME: Mapping[str, Option] = {option.name: option for option in OPTIONS}
