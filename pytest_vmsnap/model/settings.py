"""The values of the options."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pytest_vmsnap.model.spec import Firmware, MachineSpec, Network

Accel = Literal["auto", "kvm", "tcg"]
ChannelName = Literal["shell", "agent", "ssh"]
Revert = Literal["always", "marked", "on-failure"]
Missing = Literal["fail", "skip"]
Entropy = Literal["require", "warn"]
Verify = Literal["none", "nonce", "audit"]
Order = Literal["state", "none"]
Artifacts = Literal["failed", "all", "none"]
Keep = int | Literal["failed"]
Origin = Literal["command line", "environment", "ini", "default"]


STANDBY_CEILING = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """The part of a suite that one of `count` jobs runs; `index` is from 1 to `count`."""

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The typed values of the options; `origins` says where each value comes from.

    `image` None means a machine without a disk; `memory`, `output_limit`, `store_limit` and `keep_limit` are in
    MiB; `timeout` is in seconds, for one command; `timeout_factor` multiplies every deadline, None for the
    accelerator's default; `standby`, `uri` and `store` None leave the choice to the plugin. `refresh_state` are
    names of states. `keep` is how many machines of failed tests are kept, ``"failed"`` for all of them. Paths
    are absolute, except the default of `artifacts_dir`: it is relative to `root`, pytest's rootdir, as are
    paths in markers.
    """

    root: Path
    image: str | None = "debian:trixie"
    image_sha256: str | None = None
    image_mirror: str | None = None
    packages: tuple[str, ...] = ()
    kernel: str | None = None
    initrd: str | None = None
    cmdline: str | None = None
    modules: str | None = None
    memory: int = 512
    cpus: int | None = None
    network: Network = "user"
    firmware: Firmware | None = None
    cpu: str = "host"
    uri: str | None = None
    accel: Accel = "auto"
    channel: ChannelName = "shell"
    revert: Revert = "always"
    missing: Missing = "fail"
    standby: int | None = None
    entropy: Entropy = "require"
    verify: Verify = "none"
    timeout: float = 60.0
    timeout_factor: float | None = None
    output_limit: int = 64
    order: Order = "state"
    shard: Shard | None = None
    store: Path | None = None
    system_store: Path | None = Path("/var/lib/pytest-vmsnap")
    registry: str | None = None
    push: bool = False
    store_limit: int = 20480
    refresh: bool = False
    refresh_state: tuple[str, ...] = ()
    console_user: str | None = None
    console_password: str | None = None
    ssh_user: str | None = None
    ssh_key: Path | None = None
    artifacts: Artifacts = "failed"
    artifacts_dir: Path = Path("vmsnap-artifacts")
    keep: Keep = 0
    keep_limit: int = 5120
    keep_days: int = 14
    pause: bool = False
    timings: bool = False
    origins: dict[str, Origin] = field(default_factory=dict)

    def spec(self) -> MachineSpec:
        """The machine that the options describe; raises `SpecError` as `MachineSpec` does."""
        return MachineSpec(
            image=self.image,
            image_sha256=self.image_sha256,
            packages=self.packages,
            kernel=self.kernel,
            initrd=self.initrd,
            cmdline=self.cmdline,
            modules=self.modules,
            memory=self.memory,
            cpus=self.cpus,
            network=self.network,
            firmware=self.firmware,
        )


def masked(text: str) -> str:
    """Return `text` with possible secrets in its addresses hidden: user, password, and an http query."""
    text = re.sub(r"(?<=://)[^/?#\s]*@", "***@", text)
    return re.sub(r"(https?://[^\s?]*\?)\S*", r"\1***", text)
