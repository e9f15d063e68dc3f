"""The exec probe's program: what the kernel runs at each successful execve.

Pure: offsets from BTF in, instructions out. It is written for the raw tracepoint
`sched_process_exec`, whose arguments are the task, the tid that it had before, and the
linux_binprm. Nothing of it waits or follows more than a bounded number of steps.

Source: TP_PROTO of sched_process_exec in include/trace/events/sched.h, Linux 6.18.
"""

import struct
from typing import Final

from prochist.capture.assembler import Assembler, Condition, Operation, Register, Size
from prochist.capture.btf import Btf, MalformedBtfError
from prochist.capture.execrecord import (
    ARGV_BYTES,
    ARGV_UNREADABLE,
    COMM_BYTES,
    CWD_DELETED,
    CWD_UNKNOWN,
    EXE_DELETED,
    EXE_UNKNOWN,
    EXEC_PATH_BYTES,
    EXEC_PATH_UNREADABLE,
    FIELDS,
    HEADER_BYTES,
    NAME_BYTES,
    OFFSETS,
    RECORD_BYTES,
    TREE_PATH_BYTES,
)

_R0, _R1, _R2, _R3, _R4 = Register.R0, Register.R1, Register.R2, Register.R3, Register.R4
_FRAME: Final = Register.FRAME
# Kept over calls:
_TASK: Final = Register.R6
_RECORD: Final = Register.R7  # the record in the making
_THING: Final = Register.R8  # what is looked at
_LEFT: Final = Register.R9

# Helpers. Source: __BPF_FUNC_MAPPER in include/uapi/linux/bpf.h.
_MAP_LOOKUP, _KTIME_GET_NS, _GET_CURRENT_PID_TGID, _GET_CURRENT_COMM = 1, 5, 14, 16
_GET_CURRENT_CGROUP_ID, _PROBE_READ_USER, _PROBE_READ_KERNEL = 80, 112, 113
_PROBE_READ_KERNEL_STR, _RINGBUF_OUTPUT = 115, 130

_RING_NO_WAKEUP: Final = 1
_PID_OF_SESSION: Final = 3
"""PIDTYPE_SID, an index into signal_struct.pids. Source: include/linux/pid_types.h."""
_DEEPEST_PATH: Final = 64
"""Names and mount points of one path that are followed; deeper ones are None."""

# Places on the stack.
_KEY, _LOADED, _DENTRY, _MOUNT = -8, -16, -24, -32

_STRUCTS: Final = [
    "task_struct",
    "mm_struct",
    "linux_binprm",
    "cred",
    "file",
    "inode",
    "super_block",
    "fs_struct",
    "dentry",
    "qstr",
    "mount",
    "vfsmount",
    "signal_struct",
    "pid",
    "upid",
    "tty_struct",
    "tty_driver",
]


def assemble_exec_program(
    btf: Btf, *, ring_fd: int, record_fd: int, losses_fd: int, wakes_reader: bool
) -> bytes:
    """Write the program for the kernel that this BTF describes; the descriptors are its maps'.

    Raises: MalformedBtfError when the kernel lacks something that the program reads.
    """
    btf.find_structs(*_STRUCTS)
    return _ExecProgram(btf).assemble(
        ring_fd=ring_fd, record_fd=record_fd, losses_fd=losses_fd, wakes_reader=wakes_reader
    )


class _ExecProgram:
    """The program, piece by piece.

    A read of a kernel address that is not one (a null pointer followed) leaves zeros,
    so chains of pointers are followed unchecked, and checked at their end.
    Source: bpf_probe_read_kernel_common() in kernel/trace/bpf_trace.c.

    The record is made in a map's value, where the next piece goes (`size`) as well:
    what the verifier loads from there it takes for unknown, however it got there, so
    that all ways through a loop look alike to it and it need not follow each of them.
    Every use is checked against a constant, right before. Nothing used is younger than
    Linux 5.8; tried on 6.18, whose verifier walks 15,289 of its 1,000,000 instructions.
    """

    def __init__(self, btf: Btf) -> None:
        self._btf = btf
        self._asm = Assembler()

    def assemble(
        self, *, ring_fd: int, record_fd: int, losses_fd: int, wakes_reader: bool
    ) -> bytes:
        asm = self._asm
        asm.load(Size.DOUBLE, _TASK, _R1, 0)
        asm.load(Size.DOUBLE, _LEFT, _R1, 8)
        asm.load(Size.DOUBLE, _THING, _R1, 16)
        self._look_up(record_fd)
        asm.jump(Condition.EQ, _R0, 0, "exit")
        asm.compute(Operation.MOV, _RECORD, _R0)
        asm.store(Size.WORD, _RECORD, OFFSETS["size"], HEADER_BYTES)
        asm.store(Size.WORD, _RECORD, OFFSETS["flags"], 0)
        asm.store(Size.WORD, _RECORD, OFFSETS["old_tid"], _LEFT)

        # _THING is the linux_binprm.
        self._copy("argc", _THING, "linux_binprm", "argc")
        self._follow(_R3, _THING, self._at("linux_binprm", "filename", 8))
        self._append_text(EXEC_PATH_BYTES, HEADER_BYTES, "no exec path")
        asm.goto("exec path done")
        asm.label("no exec path")
        self._flag(EXEC_PATH_UNREADABLE)
        asm.label("exec path done")
        self._end_piece("exec_path_end")

        self._ids()
        self._session()

        self._follow(_THING, _TASK, self._at("task_struct", "mm", 8))
        self._follow(_THING, _THING, self._at("mm_struct", "exe_file", 8))
        self._exe_file()
        asm.compute(Operation.ADD, _THING, self._offset("file", "f_path"))
        limit = HEADER_BYTES + EXEC_PATH_BYTES + TREE_PATH_BYTES
        self._append_path("exe", limit, EXE_UNKNOWN, EXE_DELETED)
        self._end_piece("exe_end")

        self._follow(_THING, _TASK, self._at("task_struct", "fs", 8))
        asm.compute(Operation.ADD, _THING, self._offset("fs_struct", "pwd"))
        limit += TREE_PATH_BYTES
        self._append_path("cwd", limit, CWD_UNKNOWN, CWD_DELETED)
        self._end_piece("cwd_end")

        self._append_argv(limit)

        asm.load_map(_R1, ring_fd)
        asm.compute(Operation.MOV, _R2, _RECORD)
        asm.load(Size.WORD, _R3, _RECORD, OFFSETS["size"])
        asm.jump(Condition.GT, _R3, RECORD_BYTES, "lost")
        asm.compute(Operation.MOV, _R4, 0 if wakes_reader else _RING_NO_WAKEUP)
        asm.call(_RINGBUF_OUTPUT)
        asm.jump(Condition.EQ, _R0, 0, "exit")

        asm.label("lost")
        self._look_up(losses_fd)
        asm.jump(Condition.EQ, _R0, 0, "exit")
        asm.load(Size.DOUBLE, _R1, _R0)
        asm.compute(Operation.ADD, _R1, 1)
        asm.store(Size.DOUBLE, _R0, 0, _R1)
        asm.label("exit")
        asm.compute(Operation.MOV, _R0, 0)
        asm.exit()
        return asm.assemble()

    def _ids(self) -> None:
        """Write time, tgid, comm, cgroup, parent, start and credentials."""
        asm = self._asm
        for helper, field in (
            (_KTIME_GET_NS, "monotonic_ns"),
            (_GET_CURRENT_CGROUP_ID, "cgroup_id"),
        ):
            asm.call(helper)
            asm.store(Size.DOUBLE, _RECORD, OFFSETS[field], _R0)
        # Tasks that are in the same cgroup of every hierarchy share one css_set. Its address may
        # be used again: with the id beside it, that can only mix v1 hierarchies.
        # Source: struct css_set in include/linux/cgroup-defs.h.
        self._load(_THING, _TASK, self._at("task_struct", "cgroups", 8), Size.DOUBLE)
        asm.load(Size.DOUBLE, _R0, _RECORD, OFFSETS["cgroup_id"])
        asm.compute(Operation.ADD, _THING, _R0)
        asm.store(Size.DOUBLE, _RECORD, OFFSETS["cgroups_key"], _THING)
        asm.call(_GET_CURRENT_PID_TGID)
        asm.compute(Operation.RSH, _R0, 32)
        asm.store(Size.WORD, _RECORD, OFFSETS["tgid"], _R0)
        asm.compute(Operation.MOV, _R1, _RECORD)
        asm.compute(Operation.ADD, _R1, OFFSETS["comm"])
        asm.compute(Operation.MOV, _R2, COMM_BYTES)
        asm.call(_GET_CURRENT_COMM)

        self._copy("start_boottime_ns", _TASK, "task_struct", "start_boottime")
        for field, member in (("login_uid", "loginuid"), ("session", "sessionid")):
            # Only in kernels that are built with audit.
            if self._btf.has_member("task_struct", member):
                self._copy(field, _TASK, "task_struct", member)
            else:
                asm.store(Size.WORD, _RECORD, OFFSETS[field], -1)
        self._follow(_THING, _TASK, self._at("task_struct", "real_parent", 8))
        self._copy("parent_tgid", _THING, "task_struct", "tgid")
        self._follow(_THING, _TASK, self._at("task_struct", "cred", 8))
        for member in ("uid", "gid", "euid", "egid"):
            self._copy(member, _THING, "cred", member)

    def _session(self) -> None:
        """Write the session's leader, the terminal, and the pid in the innermost namespace."""
        asm, btf = self._asm, self._btf
        numbers = self._offset("pid", "numbers") + self._at("upid", "nr", 4)
        self._follow(_THING, _TASK, self._at("task_struct", "signal", 8))
        pids = self._offset("signal_struct", "pids") + 8 * _PID_OF_SESSION
        self._follow(_R3, _THING, pids)
        self._read_kernel("sid", 4, _R3, numbers)

        self._follow(_THING, _THING, self._at("signal_struct", "tty", 8))
        self._load(_LEFT, _THING, self._at("tty_struct", "index", 4), Size.WORD)
        self._follow(_THING, _THING, self._at("tty_struct", "driver", 8))
        self._load(_R0, _THING, self._at("tty_driver", "minor_start", 4), Size.WORD)
        asm.compute32(Operation.ADD, _LEFT, _R0)
        self._load(_R0, _THING, self._at("tty_driver", "major", 4), Size.WORD)
        # Source: tty_devnum() in drivers/tty/tty_io.c; MKDEV() in include/linux/kdev_t.h.
        asm.compute32(Operation.LSH, _R0, 20)
        asm.compute32(Operation.OR, _R0, _LEFT)
        asm.store(Size.WORD, _RECORD, OFFSETS["tty"], _R0)

        self._follow(_THING, _TASK, self._at("task_struct", "thread_pid", 8))
        self._load(_R0, _THING, self._at("pid", "level", 4), Size.WORD)
        asm.compute32(Operation.MUL, _R0, btf.struct_size("upid"))
        asm.compute(Operation.ADD, _THING, _R0)
        self._read_kernel("ns_pid", 4, _THING, numbers)

    def _exe_file(self) -> None:
        """Write device and inode of the file that _THING points to."""
        self._follow(_LEFT, _THING, self._at("file", "f_inode", 8))
        self._copy("exe_inode", _LEFT, "inode", "i_ino")
        self._follow(_LEFT, _LEFT, self._at("inode", "i_sb", 8))
        self._copy("exe_device", _LEFT, "super_block", "s_dev")

    def _append_path(self, name: str, limit: int, unknown: int, deleted: int) -> None:
        """Append the names of the path at _THING, innermost first, up to the root of all mounts.

        As the kernel does for readlink of /proc/PID/exe, but without its lock: a
        rename of one of the directories in the same microsecond can mix old and new.

        Source: prepend_path() and __prepend_path() in fs/d_path.c.
        """
        asm = self._asm
        to_mount = self._offset("mount", "mnt")
        mount_root = to_mount + self._at("vfsmount", "mnt_root", 8)
        parent_dentry = self._at("dentry", "d_parent", 8)

        self._follow(_R0, _THING, self._at("path", "mnt", 8))
        asm.compute(Operation.SUB, _R0, to_mount)
        asm.store(Size.DOUBLE, _FRAME, _MOUNT, _R0)
        self._follow(_THING, _THING, self._at("path", "dentry", 8))
        asm.store(Size.DOUBLE, _FRAME, _DENTRY, _THING)

        # Unhashed, and not the root of a mount: deleted. Source: d_unlinked() in dcache.h.
        self._follow(_R0, _THING, self._at("dentry", "d_hash.pprev", 8))
        asm.jump(Condition.NE, _R0, 0, f"{name} exists")
        asm.load(Size.DOUBLE, _R0, _FRAME, _MOUNT)
        self._follow(_R0, _R0, mount_root)
        asm.jump(Condition.EQ, _R0, _THING, f"{name} exists")
        self._flag(deleted)
        asm.label(f"{name} exists")

        asm.compute(Operation.MOV, _LEFT, _DEEPEST_PATH)
        asm.label(f"{name} next")
        asm.jump(Condition.EQ, _LEFT, 0, f"{name} unknown")
        asm.compute(Operation.SUB, _LEFT, 1)
        asm.load(Size.DOUBLE, _THING, _FRAME, _DENTRY)
        asm.jump(Condition.EQ, _THING, 0, f"{name} unknown")
        asm.load(Size.DOUBLE, _R0, _FRAME, _MOUNT)
        self._follow(_R0, _R0, mount_root)
        asm.jump(Condition.NE, _R0, _THING, f"{name} name")

        # The root of a mount: go on where it is mounted, unless nowhere.
        asm.load(Size.DOUBLE, _THING, _FRAME, _MOUNT)
        self._follow(_R0, _THING, self._at("mount", "mnt_parent", 8))
        asm.jump(Condition.EQ, _R0, _THING, f"{name} done")
        asm.store(Size.DOUBLE, _FRAME, _MOUNT, _R0)
        self._follow(_R0, _THING, self._at("mount", "mnt_mountpoint", 8))
        asm.store(Size.DOUBLE, _FRAME, _DENTRY, _R0)
        asm.goto(f"{name} next")

        asm.label(f"{name} name")
        self._follow(_R3, _THING, self._at("dentry", "d_name.name", 8))
        self._append_text(NAME_BYTES, limit - NAME_BYTES, f"{name} unknown")
        self._follow(_R0, _THING, parent_dentry)
        # Its own parent, and yet not the root of its mount: a file without a place (memfd).
        asm.jump(Condition.EQ, _R0, _THING, f"{name} done")
        asm.store(Size.DOUBLE, _FRAME, _DENTRY, _R0)
        asm.goto(f"{name} next")

        asm.label(f"{name} unknown")
        self._flag(unknown)
        asm.label(f"{name} done")

    def _append_argv(self, limit: int) -> None:
        """Append argv, as much as fits."""
        asm = self._asm
        self._follow(_TASK, _TASK, self._at("task_struct", "mm", 8))
        self._follow(_THING, _TASK, self._at("mm_struct", "arg_start", 8))
        self._follow(_LEFT, _TASK, self._at("mm_struct", "arg_end", 8))
        asm.compute(Operation.SUB, _LEFT, _THING)
        asm.store(Size.DOUBLE, _RECORD, OFFSETS["argv_size"], _LEFT)
        asm.jump(Condition.LE, _LEFT, ARGV_BYTES, "argv fits")
        asm.compute(Operation.MOV, _LEFT, ARGV_BYTES)
        asm.label("argv fits")
        asm.load(Size.WORD, _R1, _RECORD, OFFSETS["size"])
        asm.jump(Condition.GT, _R1, limit, "no argv")
        asm.compute(Operation.ADD, _R1, _RECORD)
        asm.compute(Operation.MOV, _R2, _LEFT)
        asm.compute(Operation.MOV, _R3, _THING)
        asm.call(_PROBE_READ_USER)
        asm.jump(Condition.NE, _R0, 0, "no argv")
        asm.load(Size.WORD, _R1, _RECORD, OFFSETS["size"])
        asm.compute(Operation.ADD, _R1, _LEFT)
        asm.store(Size.WORD, _RECORD, OFFSETS["size"], _R1)
        asm.goto("argv done")
        asm.label("no argv")
        self._flag(ARGV_UNREADABLE)
        asm.label("argv done")

    def _append_text(self, most: int, limit: int, failed: str) -> None:
        """Append the text at R3, `most` bytes with its NUL; go to `failed` if none or no room."""
        asm = self._asm
        asm.load(Size.WORD, _R1, _RECORD, OFFSETS["size"])
        asm.jump(Condition.GT, _R1, limit, failed)
        asm.compute(Operation.ADD, _R1, _RECORD)
        asm.compute(Operation.MOV, _R2, most)
        asm.call(_PROBE_READ_KERNEL_STR)
        # An error is negative, and then huge.
        asm.jump(Condition.GT, _R0, most, failed)
        asm.load(Size.WORD, _R1, _RECORD, OFFSETS["size"])
        asm.compute(Operation.ADD, _R1, _R0)
        asm.store(Size.WORD, _RECORD, OFFSETS["size"], _R1)

    def _end_piece(self, field: str) -> None:
        self._asm.load(Size.WORD, _R0, _RECORD, OFFSETS["size"])
        self._asm.store(Size.WORD, _RECORD, OFFSETS[field], _R0)

    def _flag(self, flag: int) -> None:
        self._asm.load(Size.WORD, _R0, _RECORD, OFFSETS["flags"])
        self._asm.compute(Operation.OR, _R0, flag)
        self._asm.store(Size.WORD, _RECORD, OFFSETS["flags"], _R0)

    def _look_up(self, map_fd: int) -> None:
        """Leave the address of a map's first value in R0; the verifier wants a check for 0."""
        asm = self._asm
        asm.store(Size.WORD, _FRAME, _KEY, 0)
        asm.load_map(_R1, map_fd)
        asm.compute(Operation.MOV, _R2, _FRAME)
        asm.compute(Operation.ADD, _R2, _KEY)
        asm.call(_MAP_LOOKUP)

    def _follow(self, to: Register, base: Register, offset: int) -> None:
        """Load a pointer, or any 8 bytes, from kernel memory at base + offset; 0 on failure."""
        self._load(to, base, offset, Size.DOUBLE)

    def _load(self, to: Register, base: Register, offset: int, size: Size) -> None:
        asm = self._asm
        asm.compute(Operation.MOV, _R3, base)
        asm.compute(Operation.ADD, _R3, offset)
        asm.compute(Operation.MOV, _R1, _FRAME)
        asm.compute(Operation.ADD, _R1, _LOADED)
        asm.compute(Operation.MOV, _R2, 8 if size is Size.DOUBLE else 4)
        asm.call(_PROBE_READ_KERNEL)
        asm.load(size, to, _FRAME, _LOADED)

    def _copy(self, field: str, base: Register, struct_name: str, member: str) -> None:
        """Write a member of the structure at `base` into the field of the record."""
        size = struct.calcsize("=" + dict(FIELDS)[field])
        self._read_kernel(field, size, base, self._at(struct_name, member, size))

    def _read_kernel(self, field: str, size: int, base: Register, offset: int) -> None:
        asm = self._asm
        asm.compute(Operation.MOV, _R3, base)
        asm.compute(Operation.ADD, _R3, offset)
        asm.compute(Operation.MOV, _R1, _RECORD)
        asm.compute(Operation.ADD, _R1, OFFSETS[field])
        asm.compute(Operation.MOV, _R2, size)
        asm.call(_PROBE_READ_KERNEL)

    def _offset(self, struct_name: str, path: str) -> int:
        return self._btf.member(struct_name, path).offset

    def _at(self, struct_name: str, path: str, size: int) -> int:
        """Return a member's offset, sure that it is as long as the program takes it to be."""
        member = self._btf.member(struct_name, path)
        if member.size != size:
            raise MalformedBtfError(
                f"member {path} of struct {struct_name} has {member.size} bytes, not {size}"
            )
        return member.offset
