"""What is taken out of a Debian's boot, so that it is fast on an emulated processor.

There, a process that starts costs 30 to 100 ms, a driver that finds nothing to drive as much. Nothing is
uninstalled: a unit whose link is taken away still starts when it is asked for.
docs/explanation/debian-image.md says the same in words; keep both alike.
"""

from __future__ import annotations

PACKAGES = ("busybox",)  # for the initrd

# quiet: every letter to the serial console is an exit from the emulation; errors and panics still show.
# lsm: without bpf, for systemd would compile and load a BPF program of its own (0.9 s), and without
# integrity and tomoyo. init_on_alloc, mitigations: what they protect from is no matter in a test's machine.
CMDLINE = "quiet lsm=landlock,lockdown,yama,apparmor mitigations=off init_on_alloc=0 nowatchdog audit=0"

# They run at each boot and at each `systemctl daemon-reload`. What the getty generator would say is said by
# a link; /etc/fstab and scripts in /etc/init.d keep their meaning.
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

# Not started at boot; each may be started by hand, or by what needs it.
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

# Pulled in by more than a link, so masked.
MASKED = (
    "sshd-keygen.service",
    "systemd-network-generator.service",
    "systemd-networkd-persistent-storage.service",
    "systemd-remount-fs.service",
    "systemd-udev-load-credentials.service",
)

# Kinds of devices that no rule of udev has anything to do for; of the terminals, only the console's matters.
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

# Drivers of hardware that the machines have by QEMU's default and nobody uses; modprobe loads them still.
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
    # /dev too: what two services did before
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

# The nodes that load their driver when they are opened (/dev/fuse, /dev/net/tun): known now, not at boot.
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
    """Path and target of each symbolic link that trims (systemd.unit(5): /dev/null takes a link away)."""
    system = "/etc/systemd/system"
    taken = [f"{system}/{target}.wants/{unit}" for target, units in NOT_AT_BOOT.items() for unit in units]
    taken += [f"{system}/{unit}" for unit in MASKED]
    taken += [f"/etc/systemd/system-generators/{name}" for name in GENERATORS]
    taken += ["/etc/tmpfiles.d/systemd-nologin.conf"]  # what systemd-user-sessions would take away again
    return dict.fromkeys(taken, "/dev/null")
