"""The system calls that a box may not use, as a filter for the kernel (seccomp, in the form that bubblewrap takes).

Left out is what reaches past the box's own files and processes, or hides memory from who watches: key rings (they are
shared with the user's session), new namespaces and mounts, other processes' memory, memory without a process. The
calls fail with "Operation not permitted", as they do in Docker.
"""

from __future__ import annotations

import errno
import struct
import sys

# name -> number on x86_64, on aarch64 (None: it has no such call)
DENIED = {
    "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41),
    "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430), "fsconfig": (431, 431),
    "fsmount": (432, 432), "mount_setattr": (442, 442),
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "pidfd_getfd": (438, 438), "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265),
    "memfd_create": (319, 279), "memfd_secret": (447, 447), "shmget": (29, 194), "msgget": (68, 186),
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282), "io_uring_setup": (425, 425),
    "kexec_load": (246, 104), "init_module": (175, 105), "finit_module": (313, 273),
}  # fmt: skip
CLONE, CLONE3 = (56, 220), 435
NEW_NAMESPACES = 0x7E020000  # the flags CLONE_NEW... of clone
ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
ALLOW, KILL, FAIL = 0x7FFF0000, 0x80000000, 0x00050000
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
NUMBER, ARCHITECTURE, FIRST_ARGUMENT = 0, 4, 16  # places in what the kernel shows to the filter


def seccomp_filter(machine: str) -> bytes:
    """The filter for a machine as `platform.machine()` names it; empty where the numbers of its calls are not known."""
    if machine not in ARCHITECTURES or sys.byteorder != "little":
        return b""
    column, architecture = ARCHITECTURES[machine]
    program = [
        (LOAD, 0, 0, ARCHITECTURE), (EQUAL, 1, 0, architecture), (RETURN, 0, 0, KILL),  # another machine's numbers
        (LOAD, 0, 0, NUMBER),
        (AT_LEAST, 0, 1, 0x40000000), (RETURN, 0, 0, FAIL | errno.ENOSYS),  # x32, the same calls once more
        # Its flags lie in memory, where no filter sees them; C libraries then use clone.
        (EQUAL, 0, 1, CLONE3), (RETURN, 0, 0, FAIL | errno.ENOSYS),
    ]  # fmt: skip
    for numbers in DENIED.values():
        program += [(EQUAL, 0, 1, numbers[column]), (RETURN, 0, 0, FAIL | errno.EPERM)]
    program += [
        (EQUAL, 0, 3, CLONE[column]), (LOAD, 0, 0, FIRST_ARGUMENT),
        (ANY_BIT, 0, 1, NEW_NAMESPACES), (RETURN, 0, 0, FAIL | errno.EPERM), (RETURN, 0, 0, ALLOW),
    ]  # fmt: skip
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in program)
