"""The plugin's lines in pytest's header."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_vmsnap.host import Facts
    from pytest_vmsnap.model import Settings


def header_lines(settings: Settings, facts: Facts, *, quiet: bool) -> list[str]:
    """Lines that say which libvirt, accelerator and machine the run uses; if `quiet`, only warnings."""
    cpus = settings.cpus or facts.cpus
    warnings = [*facts.warnings, *filter(None, [facts.cpu_warning(cpus)])]
    lines = [f"vmsnap: warning: {warning}" for warning in warnings]
    if quiet:
        return lines
    why = facts.accelerator.reason
    if facts.accelerator.hint:
        why = f"{why.partition(': ')[0]}; see `vmsnap doctor`"
    return [
        f"vmsnap: {facts.uri.uri} ({facts.uri.reason}), libvirt {facts.libvirt_version}, "
        f"QEMU {facts.qemu_version}, {facts.accelerator.name} ({why})",
        f"vmsnap: image {settings.image or 'none'}, {settings.memory} MiB, {_counted(cpus)}, "
        f"network {settings.network}, revert {settings.revert}",
        *lines,
    ]


def _counted(cpus: int) -> str:
    return f"{cpus} CPU" if cpus == 1 else f"{cpus} CPUs"
