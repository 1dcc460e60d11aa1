"""The guest's half of the planted shell: its source, and the unit that starts it at boot."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

COMMAND_SLOTS = 4  # commands that run at once
SLOTS = COMMAND_SLOTS + 1  # the last one is the host's own: it ends the commands of others

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


def unit() -> str:
    """The systemd unit that starts it at boot; ``@place@`` is the directory it is in."""
    return _UNIT
