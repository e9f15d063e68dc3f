"""BTF for tests: structures written by hand, and a kernel's BTF cut down to some members.

    python -m tests.capture.btf_blob /sys/kernel/btf/vmlinux tests/data/btf-6.18-x86_64

makes the fixture: the structures that the exec probe reads, as one real kernel lays them
out, with the anonymous structures around their members, and without all other types.

Source: Documentation/bpf/btf.rst.
"""

import struct
import sys
from pathlib import Path

INT, PTR, ARRAY, STRUCT, UNION, ENUM, TYPEDEF, CONST = 1, 2, 3, 4, 5, 6, 8, 10
HEADER = struct.Struct("=HBBIIIII")

KEPT = {
    "task_struct": "mm real_parent tgid cred cgroups start_boottime fs signal thread_pid "
    "loginuid sessionid",
    "mm_struct": "arg_start arg_end exe_file",
    "linux_binprm": "filename argc",
    "cred": "uid gid euid egid",
    "file": "f_path f_inode",
    "path": "mnt dentry",
    "inode": "i_ino i_sb",
    "super_block": "s_dev",
    "fs_struct": "pwd",
    "dentry": "d_parent d_name d_hash",
    "hlist_bl_node": "pprev",
    "qstr": "name",
    "mount": "mnt mnt_parent mnt_mountpoint",
    "vfsmount": "mnt_root",
    "signal_struct": "pids tty",
    "pid": "level numbers",
    "upid": "nr",
    "tty_struct": "driver index",
    "tty_driver": "major minor_start",
}
"""What the exec probe reads of a kernel's structures."""


class BtfBlob:
    """Collects types; each method returns the number of the type that it adds."""

    def __init__(self) -> None:
        self._types = b""
        self._texts = b"\0"
        self._count = 0

    def add(
        self,
        kind: int,
        *,
        name: str = "",
        size: int = 0,
        vlen: int = 0,
        words: tuple[int, ...] = (),
    ) -> int:
        self._types += struct.pack("=III", self._text(name), kind << 24 | vlen, size)
        self._types += struct.pack(f"={len(words)}I", *words)
        self._count += 1
        return self._count

    def integer(self, name: str, size: int) -> int:
        return self.add(INT, name=name, size=size, words=(size * 8,))

    def pointer(self, to: int = 0) -> int:
        return self.add(PTR, size=to)

    def array(self, of: int, count: int) -> int:
        return self.add(ARRAY, words=(of, of, count))

    def struct(
        self,
        name: str,
        size: int,
        *members: tuple[str, int, int],
        kind: int = STRUCT,
        bit_sizes: bool = False,
    ) -> int:
        """Add a structure of (name, type, bit offset); with `bit_sizes`, size << 24 is in it."""
        words = tuple(
            word
            for member, type_id, bits in members
            for word in (self._text(member), type_id, bits)
        )
        flagged = kind | (0x80 if bit_sizes else 0)
        return self.add(flagged, name=name, size=size, vlen=len(members), words=words)

    def build(self) -> bytes:
        header = HEADER.pack(
            0xEB9F, 1, 0, HEADER.size, 0, len(self._types), len(self._types), len(self._texts)
        )
        return header + self._types + self._texts

    def _text(self, name: str) -> int:
        if not name:
            return 0
        text = name.encode() + b"\0"
        at = self._texts.find(b"\0" + text)
        if at >= 0:
            return at + 1
        self._texts += text
        return len(self._texts) - len(text)


class _Cutter:
    """Copies the wanted types out of a whole blob, and what lies in them."""

    def __init__(self, blob: bytes) -> None:
        _, _, _, header, type_at, type_bytes, text_at, text_bytes = HEADER.unpack_from(blob)
        self._texts = blob[header + text_at : header + text_at + text_bytes]
        self._words: tuple[int, ...] = struct.unpack_from(
            f"={type_bytes // 4}I", blob, header + type_at
        )
        self._starts = [0]
        fixed = {1: 1, 3: 3, 14: 1, 17: 1}
        each = {4: 3, 5: 3, 6: 2, 13: 2, 15: 3, 19: 3}
        at = 0
        while at < len(self._words):
            self._starts.append(at)
            info = self._words[at + 1]
            kind = info >> 24 & 31
            at += 3 + fixed.get(kind, 0) + each.get(kind, 0) * (info & 0xFFFF)
        self.cut = BtfBlob()
        self._copied: dict[int, int] = {}

    def copy_structs(self, names: set[str]) -> None:
        for type_id, start in enumerate(self._starts[1:], start=1):
            name = self._name(self._words[start])
            if self._words[start + 1] >> 24 & 31 == STRUCT and name in names:
                self._copy(type_id)

    def _name(self, at: int) -> str:
        return self._texts[at : self._texts.index(b"\0", at)].decode()

    def _copy(self, type_id: int) -> int:
        if type_id == 0:
            return 0
        if type_id not in self._copied:
            self._copied[type_id] = self._copy_new(self._starts[type_id])
        return self._copied[type_id]

    def _copy_new(self, start: int) -> int:
        name_at, info, size = self._words[start : start + 3]
        kind, name = info >> 24 & 31, self._name(name_at)
        match kind:
            case 4 | 5:
                return self._copy_struct(start, name, kind)
            case 1:
                return self.cut.add(kind, name=name, size=size, words=self._words[start + 3 :][:1])
            case 2:
                return self.cut.pointer()
            case 3:
                return self.cut.array(self._copy(self._words[start + 3]), self._words[start + 5])
            case 6 | 19:
                return self.cut.add(ENUM, name=name, size=size)
            case _:
                return self.cut.add(kind, name=name, size=self._copy(size))

    def _copy_struct(self, start: int, name: str, kind: int) -> int:
        info, size = self._words[start + 1 : start + 3]
        kept = KEPT[name].split() if name in KEPT else None
        members = []
        for at in range(start + 3, start + 3 + 3 * (info & 0xFFFF), 3):
            member = self._name(self._words[at])
            target = self._words[at + 1]
            anonymous = not member and self._kind(target) in (STRUCT, UNION)
            wanted = {word for words in KEPT.values() for word in words.split()}
            if anonymous or member in (wanted if kept is None else kept):
                members.append((member, self._copy(target), self._words[at + 2]))
        return self.cut.struct(name, size, *members, kind=kind, bit_sizes=bool(info >> 31))

    def _kind(self, type_id: int) -> int:
        return self._words[self._starts[type_id] + 1] >> 24 & 31


def cut_btf(blob: bytes) -> bytes:
    """Return BTF with nothing but the members in KEPT."""
    cutter = _Cutter(blob)
    cutter.copy_structs(set(KEPT))
    return cutter.cut.build()


if __name__ == "__main__":
    Path(sys.argv[2]).write_bytes(cut_btf(Path(sys.argv[1]).read_bytes()))
