"""What is left out of a Debian's boot, so that it is fast on an emulated processor.

There, each process that starts costs 30 to 100 ms, and so does a driver without a device. Nothing is
uninstalled: a unit whose link is removed still starts on demand.
docs/explanation/debian-image.md describes the same for users; keep both in sync.
"""

from __future__ import annotations

PACKAGES = ("busybox",)  # for the initrd

# quiet: every letter on the serial console exits the emulation; errors and panics are still shown.
# lsm: without bpf, because systemd would compile and load a BPF program (0.9 s), and without integrity and
# tomoyo. init_on_alloc, mitigations: a machine that runs tests does not need these protections.
CMDLINE = "quiet lsm=landlock,lockdown,yama,apparmor mitigations=off init_on_alloc=0 nowatchdog audit=0"

# Generators run at each boot and at each `systemctl daemon-reload`. A link replaces the getty generator;
# the generators for /etc/fstab and for scripts in /etc/init.d stay.
GENERATORS = (
    "systemd-bless-boot-generator",
    "systemd-cryptsetup-generator",
    "systemd-debug-generator",
    "systemd-getty-generator",
    "systemd-gpt-auto-generator",
    "systemd-hibernate-resume-generator",
    "systemd-integritysetup-generator",
    "systemd-rc-local-generator",
    "systemd-run-generator",
    "systemd-ssh-generator",
    "systemd-system-update-generator",
    "systemd-tpm2-generator",
    "systemd-veritysetup-generator",
)

# Not started at boot; start them by hand, or let a unit that needs them do it.
NOT_AT_BOOT = {
    "getty.target": ("getty-static.service", "getty@tty1.service"),
    "local-fs.target": ("run-lock.mount",),
    "multi-user.target": (
        "e2scrub_reap.service",
        "getty-static.service",
        "remote-fs.target",
        "systemd-ask-password-wall.path",
        "systemd-logind.service",
        "systemd-user-sessions.service",
    ),
    "sockets.target": (
        "systemd-creds.socket",
        "systemd-hostnamed.socket",
        "systemd-initctl.socket",
        "systemd-pcrextend.socket",
        "systemd-pcrlock.socket",
        "systemd-sysext.socket",
    ),
    "sysinit.target": (
        "dev-hugepages.mount",
        "kmod-static-nodes.service",
        "proc-sys-fs-binfmt_misc.automount",
        "sys-fs-fuse-connections.mount",
        "sys-kernel-config.mount",
        "sys-kernel-debug.mount",
        "sys-kernel-tracing.mount",
        "systemd-ask-password-console.path",
        "systemd-binfmt.service",
        "systemd-firstboot.service",
        "systemd-hibernate-clear.service",
        "systemd-hwdb-update.service",
        "systemd-journal-flush.service",
        "systemd-machine-id-commit.service",
        "systemd-pcrmachine.service",
        "systemd-pcrphase-sysinit.service",
        "systemd-pcrphase.service",
        "systemd-pstore.service",
        "systemd-random-seed.service",
        "systemd-tmpfiles-setup-dev-early.service",
        "systemd-tmpfiles-setup-dev.service",
        "systemd-tpm2-setup-early.service",
        "systemd-tpm2-setup.service",
    ),
}

# More than a link pulls them in, so they are masked.
MASKED = (
    "sshd-keygen.service",
    "systemd-network-generator.service",
    "systemd-networkd-persistent-storage.service",
    "systemd-remount-fs.service",
    "systemd-udev-load-credentials.service",
)

# Subsystems for which no udev rule does anything; of the terminals, only the console matters.
DEVICES_LEFT_OUT = (
    "acpi",
    "bdi",
    "clockevents",
    "clocksource",
    "container",
    "cpu",
    "dma_heap",
    "event_source",
    "graphics",
    "leds",
    "machinecheck",
    "mem",
    "memory",
    "memory_tiering",
    "misc",
    "node",
    "pci_bus",
    "platform",
    "pnp",
    "serial-base",
    "serio",
    "thermal",
    "tty",
    "vc",
    "vtconsole",
    "wakeup",
    "workqueue",
)

# Drivers of unused hardware that QEMU adds by default; modprobe still loads them.
DRIVERS_LEFT_OUT = (
    "ata_generic",
    "ata_piix",
    "button",
    "evdev",
    "floppy",
    "i2c_piix4",
    "intel_agp",
    "joydev",
    "mousedev",
    "pata_acpi",
    "pcspkr",
    "psmouse",
    "qemu_fw_cfg",
    "serio_raw",
)

_NOMATCH = " ".join(f"--subsystem-nomatch={kind}" for kind in DEVICES_LEFT_OUT)

FILES: dict[str, str] = {
    "/etc/modprobe.d/vmsnap.conf": "".join(f"blacklist {name}\n" for name in DRIVERS_LEFT_OUT),
    "/etc/initramfs-tools/conf.d/vmsnap.conf": "MODULES=list\nCOMPRESS=lz4\n",
    "/etc/systemd/journald.conf.d/vmsnap.conf": "[Journal]\nStorage=volatile\nAudit=no\n",
    "/etc/systemd/system/systemd-udev-trigger.service.d/vmsnap.conf": f"""\
[Service]
ExecStart=
ExecStart=-udevadm trigger --type=devices --action=add --prioritized-subsystem=virtio-ports,block,net {_NOMATCH}
ExecStart=-udevadm trigger --action=add /sys/class/tty/ttyS0
""",
    # includes /dev, which two other services did before
    "/etc/systemd/system/systemd-tmpfiles-setup.service.d/vmsnap.conf": """\
[Service]
ExecStart=
ExecStart=systemd-tmpfiles --create --remove --boot
ImportCredential=
""",
    "/etc/systemd/system/ssh.service.d/vmsnap.conf": "[Service]\nExecStartPre=\n",
    "/etc/systemd/system/systemd-journald.service.d/vmsnap.conf": "[Service]\nImportCredential=\n",
    "/etc/systemd/system/systemd-networkd.service.d/vmsnap.conf": "[Service]\nImportCredential=\n",
    "/etc/systemd/system/systemd-sysctl.service.d/vmsnap.conf": "[Service]\nImportCredential=\n",
    "/etc/systemd/system/serial-getty@.service.d/vmsnap.conf": "[Service]\nImportCredential=\n",
}

# Device nodes that load their driver when opened (/dev/fuse, /dev/net/tun) are listed now, not at boot.
SETUP = """\
rm -f /etc/modules-load.d/modules.conf
sed -i 's/^update_initramfs=.*/update_initramfs=no/' /etc/initramfs-tools/update-initramfs.conf
cat /lib/modules/*/modules.devname | while read -r module node number; do
    case $node in
        net/tun) mode='0666 root root' ;;
        loop-control | btrfs-control) mode='0660 root disk' ;;
        *) mode='0600 root root' ;;
    esac
    case $number in c*) echo "c! /dev/$node $mode - ${number#c}" ;; esac
done >/etc/tmpfiles.d/vmsnap-devices.conf
touch /etc/.updated /var/.updated
"""


def links() -> dict[str, str]:
    """The links that trim, by path; the target is always /dev/null, which masks (systemd.unit(5))."""
    system = "/etc/systemd/system"
    taken = [f"{system}/{target}.wants/{unit}" for target, units in NOT_AT_BOOT.items() for unit in units]
    taken += [f"{system}/{unit}" for unit in MASKED]
    taken += [f"/etc/systemd/system-generators/{name}" for name in GENERATORS]
    taken += ["/etc/tmpfiles.d/systemd-nologin.conf"]  # systemd-user-sessions would remove /run/nologin
    return dict.fromkeys(taken, "/dev/null")
