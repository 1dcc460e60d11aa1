"""The guest's half of the planted shell: its source, and the unit that starts it at boot."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from pytest_vmsnap.model import Additions

COMMAND_SLOTS = 4  # commands that run at once
SLOTS = COMMAND_SLOTS + 1  # the last one is the host's own: it ends the commands of others

# ``@place@`` is the directory that the script is in
_UNIT = """\
[Unit]
Description=The planted shell of pytest-vmsnap
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
    """The planted shell, a script for POSIX ``sh``."""
    return (files(__package__) / "planted.sh").read_text(encoding="utf-8")


@cache
def planting_script() -> str:
    """What puts it into a guest, run there as root: a script for POSIX ``sh``. Doing so twice is no harm."""
    text = (files(__package__) / "plant.sh").read_text(encoding="utf-8")
    for name, part in {"@shell@": source(), "@unit@": _UNIT}.items():
        text = text.replace(name, part.rstrip("\n"))
    return text


def additions() -> Additions:
    """What an image needs for the shell to be there from its first boot, and nobody to have to plant it."""
    place, units = "/usr/lib/vmsnap", "/etc/systemd/system"
    template = _UNIT.replace("@place@", place)
    wants = f"{units}/multi-user.target.wants/vmsnap-shell.service"
    return Additions(
        files=((f"{place}/shell", source()), (f"{units}/vmsnap-shell.service", template)),
        links=((wants, "../vmsnap-shell.service"),),
    )
