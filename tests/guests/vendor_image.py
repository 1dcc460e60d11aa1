"""Whole systems on a disk, as vendors ship them: GPT, GRUB for BIOS and for UEFI, and an init of their own.

    python -m tests.guests.vendor_image TARGET.qcow2 [SYSTEM]

needs mmdebstrap, e2fsprogs, fdisk, mtools, qemu-utils, grub-pc-bin, grub-efi-amd64-bin and, for an ordinary
user, fakeroot and subordinate ids. The partitions: 1 for GRUB's BIOS code, 2 EFI system, 3 root (ext4).
"""

from __future__ import annotations

import shlex
import shutil
import struct
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_vmsnap.image.debian import tools

if TYPE_CHECKING:
    from collections.abc import Mapping

SECTOR = 512
BIOS_BOOT, EFI_SYSTEM, ROOT = 2048, 4096, 135168  # first sectors
EFI_SECTORS = ROOT - EFI_SYSTEM
DISK_MIB, ROOT_MIB = 3072, 2900
LABEL = "cloudimg-rootfs"
PASSWORD = "sesame"  # noqa: S105 - of a disposable guest
PARTITIONS = f"""\
label: gpt
start={BIOS_BOOT}, size={EFI_SYSTEM - BIOS_BOOT}, type=21686148-6449-6E6F-744E-656564454649
start={EFI_SYSTEM}, size={EFI_SECTORS}, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B
start={ROOT}
"""
GRUB = f"""\
set default=0
set timeout=1
serial --unit=0 --speed=115200
terminal_input console serial
terminal_output console serial
menuentry 'Linux' {{
    search --no-floppy --label --set=root {LABEL}
    linux /vmlinuz root=LABEL={LABEL} ro console=tty0 console=ttyS0,115200 no_timer_check @cmdline@
    initrd /initrd.img
}}
"""
# GRUB looks for this on the EFI system partition, if Debian signed it.
SIGNED_GRUB = f"""\
search --no-floppy --label --set=root {LABEL}
set prefix=($root)/boot/grub
configfile $prefix/grub.cfg
"""
MODULES = ("ext2", "normal", "linux", "search", "search_label", "configfile", "serial", "terminal", "echo")
BIOS_MODULES = ("biosdisk", "part_gpt", *MODULES)
EFI_MODULES = ("part_gpt", "fat", *MODULES)
COMMON = (
    "udev",
    "procps",
    "kmod",
    "iproute2",
    "netbase",
    "initramfs-tools",
    "e2fsprogs",
    "login",
    "passwd",
    "zstd",
)
SERIAL_LOGIN = "S0:2345:respawn:/sbin/getty -L 115200 ttyS0 vt100\n"
RUNIT_LOGIN = "#!/bin/sh\nexec /sbin/getty -L 115200 ttyS0 vt100\n"
# Init, its boot script and the whole userland of busybox alone, as small systems have them.
BUSYBOX_INITTAB = """\
::sysinit:/etc/init.d/rcS
ttyS0::respawn:/sbin/getty -L 115200 ttyS0 vt100
::shutdown:/bin/umount -a -r
"""
BUSYBOX_BOOT = """\
#!/bin/sh
mountpoint -q /proc || mount -t proc proc /proc
mountpoint -q /sys || mount -t sysfs sysfs /sys
mount -o remount,rw /
mount -t tmpfs tmpfs /run
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
find /sys -name modalias | xargs cat | sort -u | xargs modprobe -a -q
ip link set lo up
/etc/init.d/syslogd start
"""
BUSYBOX_SYSLOG = """\
#!/bin/sh
case "$1" in
    start) syslogd ;;
    stop) killall syslogd ;;
    status) pidof syslogd ;;
esac
"""
BUSYBOX_SETUP = f"""\
chmod 755 /etc/init.d/rcS /etc/init.d/syslogd
echo 'root:{PASSWORD}' | chpasswd --crypt-method SHA512 # busybox knows no yescrypt
for applet in $(busybox --list); do
    ln -sf /usr/bin/busybox "$(command -v "$applet" || echo "/usr/sbin/$applet")"
done
"""
# As a vendor's hook for the root; the kernel's links are those that GRUB names.
SETUP = f"""\
set -eu
echo 'root:{PASSWORD}' | chpasswd
for name in vmlinuz initrd.img; do
    newest=$(ls /boot/$name-* | sort -V | tail -n 1)
    ln -sfn "boot/${{newest##*/}}" "/$name"
done
mkdir -p /boot/efi /boot/grub
"""


@dataclass(frozen=True, kw_only=True)
class System:
    """What is on the disk: Debian of a suite, with `packages`, `files` by path, and `setup`, run in the root.

    `signed` takes Debian's signed boot loaders for UEFI, which Secure Boot accepts.
    """

    packages: tuple[str, ...]
    suite: str = "trixie"
    kernel: str = "linux-image-cloud-amd64"
    files: Mapping[str, str] = field(default_factory=dict)
    setup: str = ""
    cmdline: str = ""
    signed: bool = False


SYSTEMS = {
    "cloud": System(
        packages=(
            *(
                "systemd-sysv",
                "cloud-init",
                "cloud-guest-utils",
                "netplan.io",
                "openssh-server",
                "sudo",
                "dbus",
            ),
            *(
                "systemd-resolved",
                "ca-certificates",
                "fdisk",
                "shim-signed",
                "grub-efi-amd64-signed",
                "efibootmgr",
            ),
        ),
        kernel="linux-image-amd64",
        files={"/etc/machine-id": "uninitialized\n", "/etc/hostname": "localhost\n"},
        signed=True,
    ),
    "sysvinit": System(packages=("sysvinit-core",), setup=f"echo '{SERIAL_LOGIN}' >>/etc/inittab\n"),
    "ifupdown": System(packages=("sysvinit-core", "ifupdown"), setup=f"echo '{SERIAL_LOGIN}' >>/etc/inittab\n"),
    "openrc": System(packages=("sysvinit-core", "openrc"), setup=f"echo '{SERIAL_LOGIN}' >>/etc/inittab\n"),
    "runit": System(
        packages=("runit-init", "runit"),
        files={"/etc/sv/login-serial/run": RUNIT_LOGIN},
        setup="chmod 755 /etc/sv/login-serial/run\nln -sfn /etc/sv/login-serial /etc/service/login-serial\n",
    ),
    "busybox": System(
        packages=("busybox",),
        files={
            "/etc/inittab": BUSYBOX_INITTAB,
            "/etc/init.d/rcS": BUSYBOX_BOOT,
            "/etc/init.d/syslogd": BUSYBOX_SYSLOG,
        },
        setup=BUSYBOX_SETUP,
    ),
    "selinux": System(
        packages=("systemd-sysv", "dbus", "selinux-basics", "selinux-policy-default", "auditd"),
        files={"/.autorelabel": ""},
        setup="sed -i 's/^SELINUX=.*/SELINUX=enforcing/' /etc/selinux/config\n"
        "systemctl enable serial-getty@ttyS0.service\n",
        cmdline="security=selinux selinux=1",
    ),
}


def make(target: Path, system: System) -> None:
    """Write the disk to the new qcow2 `target`; takes one to three minutes."""
    with tempfile.TemporaryDirectory(dir=target.parent) as name:
        work = Path(name)
        root, raw = work / "root", work / "disk.raw"
        with raw.open("wb") as file:
            file.truncate(DISK_MIB << 20)
        _run("sfdisk", "-q", raw, stdin=PARTITIONS)
        _write_root(work, root, raw, system)
        _write_bios(work, raw)
        _write_efi(work, raw, root, signed=system.signed)
        options = ("-O", "qcow2", "-c", "-o", "compression_type=zstd")
        _run("qemu-img", "convert", "-f", "raw", *options, raw, work / "done")
        (work / "done").rename(target)


def _run(*command: object, stdin: str | None = None) -> None:
    done = subprocess.run(
        [str(word) for word in command], input=stdin, text=True, capture_output=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed:\n{done.stdout}{done.stderr}")


def _write_root(work: Path, root: Path, raw: Path, system: System) -> None:
    """Install the system and pack it into the third partition; its files stay in the directory `root`."""
    mode = tools.mode()
    overlay = work / "overlay"
    fstab = f"LABEL={LABEL} / ext4 defaults 0 1\nLABEL=UEFI /boot/efi vfat umask=0077,nofail 0 1\n"
    grub = GRUB.replace("@cmdline@", system.cmdline)
    for path, text in {"/etc/fstab": fstab, "/boot/grub/grub.cfg": grub, **system.files}.items():
        file = overlay / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    options = ['--aptopt=Acquire::Check-Valid-Until "false"'] if system.suite == "sid" else []
    include = ",".join((*COMMON, system.kernel, *system.packages))
    hooks = [
        f"--customize-hook=copy-in {' '.join(shlex.quote(str(path)) for path in overlay.iterdir())} /",
        f'--customize-hook=chroot "$1" sh -c {shlex.quote(SETUP + system.setup)}',
    ]
    command = ["mmdebstrap", f"--mode={mode}", "--variant=minbase", f"--include={include}", *options, *hooks]
    if mode == "root":
        command = [*tools.private_mounts_prefix(), *command]
    tar = work / "root.tar"
    with tar.open("wb") as written:
        done = subprocess.run(
            [*command, "--format=tar", system.suite, "-"], stdout=written, stderr=subprocess.PIPE, check=False
        )
    if done.returncode:
        raise RuntimeError(f"mmdebstrap failed:\n{done.stderr.decode(errors='replace')[-4000:]}")
    offset = f"offset={ROOT * SECTOR}"
    pack = (
        f"mkdir {root} && tar -xpf {tar} --numeric-owner --exclude='./dev/*' -C {root} && "
        f"mke2fs -q -F -t ext4 -L {LABEL} -d {root} -E {offset},root_owner=0:0 {raw} {ROOT_MIB}M"
    )
    _run(*([] if mode == "root" else ["fakeroot", "--"]), "sh", "-c", pack)
    tar.unlink()


def _write_bios(work: Path, raw: Path) -> None:
    """GRUB's first sector in the MBR, the rest in its partition (as grub-bios-setup does it on a device)."""
    core = work / "core.img"
    _run("grub-mkimage", "-O", "i386-pc", "-p", "(hd0,gpt3)/boot/grub", "-o", core, *BIOS_MODULES)
    boot = bytearray(Path("/usr/lib/grub/i386-pc/boot.img").read_bytes()[:440])
    boot[0x5C:0x64] = struct.pack("<Q", BIOS_BOOT)
    boot[0x66:0x68] = b"\x90\x90"  # any disk that the BIOS names
    image = bytearray(core.read_bytes())
    image[0x1F4:0x1FC] = struct.pack("<Q", BIOS_BOOT + 1)
    with raw.open("r+b") as disk:
        disk.write(boot)
        disk.seek(BIOS_BOOT * SECTOR)
        disk.write(image)


def _write_efi(work: Path, raw: Path, root: Path, *, signed: bool) -> None:
    """A FAT file system with the boot loader that UEFI starts if no variable names another."""
    loader, partition, config = work / "loader.efi", work / "efi.img", work / "grub.cfg"
    config.write_text(SIGNED_GRUB)
    with partition.open("wb") as file:
        file.truncate(EFI_SECTORS * SECTOR)
    _run("mformat", "-i", partition, "-F", "-v", "UEFI", "::")
    _run("mmd", "-i", partition, "::/EFI", "::/EFI/BOOT", "::/EFI/debian")
    if signed:
        shutil.copyfile(root / "usr/lib/shim/shimx64.efi.signed", loader)
        grub = root / "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed"
        _run("mcopy", "-i", partition, grub, "::/EFI/BOOT/grubx64.efi")
        _run("mcopy", "-i", partition, config, "::/EFI/debian/grub.cfg")
    else:
        _run("grub-mkimage", "-O", "x86_64-efi", "-c", config, "-p", "/boot/grub", "-o", loader, *EFI_MODULES)
    _run("mcopy", "-i", partition, loader, "::/EFI/BOOT/BOOTX64.EFI")
    with partition.open("rb") as source, raw.open("r+b") as disk:
        disk.seek(EFI_SYSTEM * SECTOR)
        shutil.copyfileobj(source, disk)


if __name__ == "__main__":
    make(Path(sys.argv[1]).resolve(), SYSTEMS[sys.argv[2] if len(sys.argv) > 2 else "cloud"])
