"""Test whether KVM runs a guest on this host, with a guest of 368 bytes that takes a fraction of a second.

That ``/dev/kvm`` opens proves little. A paravirtual KVM (``kvm_pvm``, on hosts whose CPU shows neither ``vmx``
nor ``svm``) opens and creates vcpus, but QEMU 7.2 asserts on an MSR of ``-cpu host``. If you avoid that, this
KVM interprets the guest until it meets an instruction that KVM's emulator does not know. So the probe is a
kernel that first does what a real kernel does when it starts, and then what only a processor can do.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import subprocess
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from pytest_vmsnap.host.processes import limited

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

User = tuple[int, int]

# as --64 -o probe.o - && ld -m elf_x86_64 -Ttext=0x100000 -e entry --oformat binary -o probe.bin probe.o
ASSEMBLY = """\
        .set    MAGIC, 0x1badb002       # Multiboot 1, section 3.1
        .set    FLAGS, 1 << 16          # the addresses below hold; there is no ELF
        .set    MIRROR, 1 << 32         # second mapping of the first 2 MiB
        .set    VALUE, 0x123456789abcdef1
        .set    SQUARE, 0xca4ab582281edee1      # of VALUE, modulo 2^64
        .set    tables, 0x104000        # page table level 4, directory pointers, directory
        .set    idt, 0x107000
        .set    word, 0x108000
        .set    stack, 0x109000

        .code32
start:  .long   MAGIC, FLAGS, -(MAGIC + FLAGS)
        .long   start, start, end, tables + 0x3000, entry

        .globl  entry
entry:  cld
        mov     $tables, %edi
        xor     %eax, %eax
        mov     $0xc00, %ecx
        rep     stosl
        movl    $tables + 0x1003, tables
        movl    $tables + 0x2003, tables + 0x1000       # the first GiB ...
        movl    $tables + 0x2003, tables + 0x1020       # ... is the fifth as well
        movl    $0x83, tables + 0x2000                  # 2 MiB, writable, from address 0
        mov     %cr4, %eax
        or      $0x620, %eax            # PAE; OSFXSR and OSXMMEXCPT, for SSE
        mov     %eax, %cr4
        mov     $tables, %eax
        mov     %eax, %cr3
        mov     $0xc0000080, %ecx       # EFER
        rdmsr
        or      $0x100, %eax            # LME
        wrmsr
        mov     %cr0, %eax
        and     $~0xc, %eax             # neither EM nor TS
        or      $0x80000002, %eax       # PG, MP
        mov     %eax, %cr0
        lgdt    gdtr
        ljmp    $8, $long_mode

        .code64
long_mode:
        mov     $16, %eax
        mov     %eax, %ss
        mov     $stack, %esp
        mov     $trap, %eax             # the gate of vector 6, invalid opcode
        mov     %ax, idt + 0x60
        movw    $8, idt + 0x62
        movw    $0x8e00, idt + 0x64
        shr     $16, %eax
        mov     %ax, idt + 0x66
        lidt    idtr

        xor     %eax, %eax
        cpuid                           # any vendor will do
        test    %ebx, %ebx
        jz      failed

        movabs  $VALUE, %rax
        movabs  $MIRROR + word, %rbx
        mov     %rax, (%rbx)            # through the fifth GiB ...
        mov     word, %rcx              # ... and back through the first
        imul    %rcx, %rcx
        movabs  $SQUARE, %rax
        cmp     %rax, %rcx
        jne     failed

        movq    %rcx, %xmm0             # a processor does this; KVM's emulator does not know it
        paddq   %xmm0, %xmm0
        movq    %xmm0, %rdx
        add     %rcx, %rcx
        cmp     %rcx, %rdx
        jne     failed

        xor     %r15d, %r15d
        ud2                             # to the trap, which resumes after it
        cmp     $1, %r15d
        jne     failed
        mov     $0x2a, %al
        jmp     exit

failed: mov     $0x15, %al
exit:   out     %al, $0xf4              # isa-debug-exit: QEMU ends with 2 * AL + 1
        hlt
        jmp     exit

trap:   mov     $1, %r15d
        addq    $2, (%rsp)
        iretq

        .balign 8, 0
gdt:    .quad   0, 0x00af9a000000ffff, 0x00cf92000000ffff
gdtr:   .word   gdtr - gdt - 1
        .long   gdt
idtr:   .word   0x6f
        .quad   idt
end:
"""

MACHINE_CODE = bytes.fromhex("""
    02b0ad1b00000100fe4f51e40000100000001000700110000070100020001000fcbf0040100031c0b9000c0000f3abc7
    050040100003501000c7050050100003601000c7052050100003601000c70500601000830000000f20e00d200600000f
    22e0b8004010000f22d8b9800000c00f320d000100000f300f20c083e0f30d020000800f22c00f011560011000ea9400
    10000800b8100000008ed0bc00901000b83a011000668904256070100066c7042562701000080066c704256470100000
    8ec1e81066890425667010000f011c256601100031c00fa285db745748b8f1debc9a7856341248bb0080100001000000
    488903488b0c2500801000480fafc948b8e1de1e2882b54aca4839c1752566480f6ec1660fd4c066480f7ec24801c948
    39ca750f4531ff0f0b4183ff017504b02aeb02b015e6f4f4ebfb41bf01000000488304240248cf000000000000000000
    ffff0000009aaf00ffff00000092cf001700480110006f000070100000000000
""")

PASSED = 2 * 0x2A + 1
FAILED = 2 * 0x15 + 1
REGISTERS = ("EAX=", "RAX=")  # QEMU prints a stopped CPU's registers, then waits for a debugger


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The result of a probe: `reason` says why it failed; if `timed_out`, a busy host may be the cause."""

    passed: bool
    reason: str = ""
    timed_out: bool = False


def probe(
    emulator: Path, *, timeout: float, accel: str = "kvm", cpu: str = "host", as_user: User | None = None
) -> Outcome:
    """Run the probe guest under `accel` for at most `timeout` seconds; leave nothing behind.

    `as_user` is the (uid, gid) that QEMU runs as, which needs root; None for the current user.
    """
    with _kernel() as kernel:
        return _run(_command(emulator, f"/proc/self/fd/{kernel}", accel, cpu), kernel, timeout, as_user)


@contextlib.contextmanager
def _kernel() -> Iterator[int]:
    """A descriptor of the guest's kernel: an unnamed file, so that none can be left behind."""
    descriptor = os.memfd_create("vmsnap-probe")
    try:
        os.write(descriptor, MACHINE_CODE)
        yield descriptor
    finally:
        os.close(descriptor)


def _command(emulator: Path, kernel: str, accel: str, cpu: str) -> list[str]:
    return [
        *(str(emulator), "-accel", accel, "-cpu", cpu, "-machine", "pc", "-m", "32"),
        *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
        *("-device", "isa-debug-exit,iobase=0xf4,iosize=0x04", "-kernel", kernel),
    ]


def _run(command: list[str], kernel: int, timeout: float, as_user: User | None) -> Outcome:
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            pass_fds=[kernel],
            **identity(as_user),
        )
    except OSError as error:
        return Outcome(passed=False, reason=f"{command[0]} cannot be started: {error.strerror}")
    with process, limited(process, timeout) as ran_out:
        lines = list(_until_registers(process.stderr))
        stopped = process.poll() is None and bool(lines) and lines[-1].startswith(REGISTERS)
        if stopped:
            process.kill()
        status = process.wait()
    if ran_out.is_set() and not stopped:
        return Outcome(passed=False, reason=f"it did not finish within {timeout:g} s", timed_out=True)
    return Outcome(passed=True) if status == PASSED else Outcome(passed=False, reason=_why(lines, status))


def _until_registers(stderr: IO[str] | None) -> Iterator[str]:
    for line in stderr or ():
        yield line.strip()
        if line.startswith(REGISTERS):
            return


def _why(lines: list[str], status: int) -> str:
    """Why the guest failed: KVM's own message, or else QEMU's last line."""
    kvm = [line for line in lines if line.startswith("KVM") or line == "emulation failure"]
    said = [line for line in lines if line and not line.startswith(REGISTERS)]
    if kvm:
        return ": ".join(kvm)
    if said:
        return said[-1].removeprefix("qemu-system-x86_64: ")
    return "the guest computed a wrong result" if status == FAILED else f"QEMU ended with status {status}"


def identity(as_user: User | None) -> dict[str, Any]:
    """The `subprocess.Popen` arguments that run the child as `as_user`, with that user's groups."""
    if as_user is None or as_user[0] == os.geteuid():
        return {}
    uid, gid = as_user
    try:
        groups = os.getgrouplist(pwd.getpwuid(uid).pw_name, gid)
    except KeyError:  # a user without a name has only its own group
        groups = [gid]
    return {"user": uid, "group": gid, "extra_groups": groups}
