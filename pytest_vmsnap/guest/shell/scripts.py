"""The guest's half of the guest shell: its script, and the unit that starts it at boot."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from pytest_vmsnap.model import Additions

COMMAND_SLOTS = 4  # commands that run at once
SLOTS = COMMAND_SLOTS + 1  # the last one is the host's own: it kills the commands of the others

# ``@place@`` is the directory of the script
_UNIT = """\
[Unit]
Description=The guest shell of pytest-vmsnap
DefaultDependencies=no
After=local-fs.target systemd-tmpfiles-setup.service
Before=shutdown.target
Conflicts=shutdown.target

[Service]
ExecStart=/bin/sh @place@/shell
Restart=always
RestartSec=0.2
StandardInput=null
StandardOutput=null
StandardError=null
KillMode=process
SendSIGHUP=yes
IgnoreSIGPIPE=no
TasksMax=infinity
LimitCORE=0:infinity

[Install]
WantedBy=multi-user.target
"""


@cache
def source() -> str:
    """Return the guest shell, a script for POSIX ``sh``."""
    return (files(__package__) / "guest.sh").read_text(encoding="utf-8")


@cache
def install_script() -> str:
    """Return the POSIX ``sh`` script that installs it, run as root in the guest; twice does no harm."""
    text = (files(__package__) / "install.sh").read_text(encoding="utf-8")
    for name, part in {"@shell@": source(), "@unit@": _UNIT}.items():
        text = text.replace(name, part.rstrip("\n"))
    return text


def additions() -> Additions:
    """Return what an image needs so that the shell runs from its first boot, without being installed later."""
    place, units = "/usr/lib/vmsnap", "/etc/systemd/system"
    template = _UNIT.replace("@place@", place)
    wants = f"{units}/multi-user.target.wants/vmsnap-shell.service"
    return Additions(
        files=((f"{place}/shell", source()), (f"{units}/vmsnap-shell.service", template)),
        links=((wants, "../vmsnap-shell.service"),),
    )
