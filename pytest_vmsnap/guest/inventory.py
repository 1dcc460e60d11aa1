"""What a test that promised to change nothing has changed (``vmsnap_verify=audit``).

The guest is listed before and after: mounts, active units, packages, users and groups, sysctls, listening ports
(proc(5)), and its files with the times and modes of their inodes (inode(7)). What changes by itself, or because
it is read, is left out: access times, times of directories, logs, systemd's own state, pseudo file systems.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_vmsnap.errors import ChannelError
from pytest_vmsnap.guest.channel import Request

if TYPE_CHECKING:
    from pytest_vmsnap.guest.channel import Channel

MOST_OF_A_KIND = 20

# Prints items, each ended by \0: a name, a tab, and all details that may change. A kind begins with \1 and its
# name. The neighbours' times that are not in milliseconds are left out: the kernel complains if they are read.
LIST = r"""
section() { printf '\1%s\0' "$1"; }
each_line() { tr '\n' '\0'; }
listed() {
  if find / -maxdepth 0 -printf '' 2>/dev/null; then
    find "$1" -xdev \( -path /run/systemd -o -path /run/udev -o -path /run/log -o -path /run/user \
      -o -path /run/utmp -o -path /run/sudo -o -path /var/log -o -path /var/lib/systemd \
      -o -name '.vmsnap-nonce' -o -path '/dev/shm/vmsnap.??????' -o -path '/run/vmsnap.??????' \
      -o -path '/tmp/vmsnap.??????' \) -prune -o -type d -printf '%p\t%y %m %U:%G\0' \
      -o -printf '%p\t%y %m %U:%G %s %T@ %C@ %l\0'
  else
    find "$1" -xdev \( -path '/run/*' -o -path '/var/log/*' -o -name '.vmsnap-nonce' \
      -o -path '/dev/shm/vmsnap.??????' -o -path '/tmp/vmsnap.??????' \) -prune \
      -o -type d -exec stat -c '%n	%F %a %u:%g' {} + \
      -o -exec stat -c '%n	%F %a %u:%g %s %Y %Z' {} + | each_line
  fi
}
section mount
while read -r source place type options _; do
  printf '%b\t%s %s %s\0' "$place" "$source" "$type" "$options"
done </proc/mounts
section unit
systemctl list-units --plain --no-legend --full 2>/dev/null | while read -r unit _ active sub _; do
  case $unit in
    *.device | *.timer | systemd-*.service | session-*.scope | user*@*.service | user-*.slice | \
    run-user-*.mount | proc-sys-fs-binfmt_misc.*) ;;
    *) printf '%s\t%s %s\0' "$unit" "$active" "$sub" ;;
  esac
done
section package
if command -v dpkg-query >/dev/null; then dpkg-query -W -f '${Package}:${Architecture}\t${Version} ${Status}\n'
elif command -v rpm >/dev/null; then rpm -qa --qf '%{NAME}.%{ARCH}\t%{VERSION}-%{RELEASE}\n'
elif command -v apk >/dev/null; then apk info -v
elif command -v pacman >/dev/null; then pacman -Q
fi 2>/dev/null | each_line
section user
sed 's/:/\t/' /etc/passwd | each_line
section group
sed 's/:/\t/' /etc/group | each_line
section sysctl
find /proc/sys -xdev -path /proc/sys/fs/binfmt_misc -prune -o -type f -perm -0600 ! -name ns_last_pid \
  ! -name 'perf_*' ! -name stat_refresh ! -name base_reachable_time ! -name retrans_time \
  -exec grep -H '' {} + 2>/dev/null | sed 's/:/\t/' | each_line
for table in tcp tcp6 udp udp6; do
  section "$table"
  [ ! -e /proc/net/$table ] || each_line </proc/net/$table
done
section file
while read -r _ place type _; do
  case $type in
    proc | sysfs | dev* | cgroup* | bpf | tracefs | debugfs | securityfs | configfs | pstore | efivarfs | \
    mqueue | hugetlbfs | autofs | binfmt_misc | fusectl | rpc_pipefs | nsfs | selinuxfs) ;;
    *) listed "$(printf '%b' "$place")" ;;
  esac
done </proc/mounts 2>/dev/null
"""
LISTENING = {
    "tcp": "0A",
    "udp": "07",
}  # include/net/tcp_states.h: TCP_LISTEN, TCP_CLOSE (an unconnected socket)


@dataclass(frozen=True, slots=True)
class Inventory:
    """What was found in a guest: all details that may change, by kind (``"file"``, ``"mount"``, …) and name."""

    found: dict[str, dict[str, str]]

    def changes_to(self, after: Inventory) -> list[str]:
        """Return a line for each item that is changed, new or gone in `after`.

        Of each kind, only the first `MOST_OF_A_KIND` have their own line, and one more line counts the rest.
        """
        lines = []
        for kind in {**self.found, **after.found}:
            before, now = self.found.get(kind, {}), after.found.get(kind, {})
            changed = [
                f"{kind} {name}: {_difference(kind, before.get(name), now.get(name))}"
                for name in sorted({**before, **now})
                if before.get(name) != now.get(name)
            ]
            lines += changed[:MOST_OF_A_KIND]
            if len(changed) > MOST_OF_A_KIND:
                lines.append(f"{kind}: {len(changed) - MOST_OF_A_KIND} more")
        return lines


def inventory(channel: Channel, *, timeout: float) -> Inventory:
    """List the guest as it is now; raise `ChannelError` if that takes more than `timeout` seconds."""
    done = channel.run(Request(text=LIST), timeout=timeout)
    if done.timed_out:
        raise ChannelError(f"the guest could not be listed within {timeout:.0f} s")
    return parsed(done.stdout.decode(errors="replace"))


def parsed(text: str) -> Inventory:
    """Parse what `LIST` printed."""
    found: dict[str, dict[str, str]] = {}
    kind = ""
    for item in text.removesuffix("\0").split("\0"):
        if item.startswith("\1"):
            kind = item[1:]
        elif kind[:3] in LISTENING:
            found.setdefault("port", {}).update(_listening(kind, item))
        else:
            name, _, rest = item.partition("\t")
            if kind == "sysctl":
                name = name.removeprefix("/proc/sys/").replace("/", ".")
            things = found.setdefault(kind, {})
            things[name] = f"{things[name]}\n{rest}" if name in things else rest
    return Inventory(found)


def _listening(table: str, line: str) -> dict[str, str]:
    """Return the listening port in a line of a table in ``/proc/net`` (proc_net_tcp.rst), if it has one."""
    match = re.match(r"\s*\d+: ([0-9A-F]+):([0-9A-F]{4}) \S+ ([0-9A-F]{2})", line)
    if not match or match[3] != LISTENING[table[:3]]:
        return {}
    # words in the processor's byte order, which is little-endian on all that we boot
    words = [bytes.fromhex(word)[::-1] for word in re.findall("[0-9A-F]{8}", match[1])]
    address = ipaddress.ip_address(b"".join(words))
    return {f"{int(match[2], 16)}/{table[:3]} on {address}": "listens"}


def _difference(kind: str, before: str | None, after: str | None) -> str:
    if before is None:
        return "new"
    if after is None:
        return "gone"
    return "changed" if kind in ("file", "user") else f"{before} -> {after}"
