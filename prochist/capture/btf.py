"""BTF: where in the kernel's structures a member lies.

Pure: a blob in, offsets out. It knows the format, and neither which kernel the
blob is of nor what the offsets are for. Any blob, cut or garbled anywhere, gives a
value or `MalformedBtfError`, in time and memory proportional to its size.

Only one pass is made, over the types' headers, and only the types that were asked
for are looked into: 5.5 MB with 127,000 types take 50 ms, where decoding each of
them would take seconds.

Source: Documentation/bpf/btf.rst, include/uapi/linux/btf.h, Linux 6.18.
"""

import struct
import sys
from array import array
from collections.abc import Iterator
from typing import Final, NamedTuple

from prochist.errors import ProchistError

_HEADER: Final = struct.Struct("=HBBIIIII")
_MAGIC: Final = 0xEB9F
_KINDS: Final = 20

_INT, _PTR, _ARRAY, _STRUCT, _UNION, _ENUM, _FWD, _TYPEDEF, _VOLATILE, _CONST = range(1, 11)
_RESTRICT, _FUNC, _FUNC_PROTO, _VAR, _DATASEC, _FLOAT, _DECL_TAG, _TYPE_TAG, _ENUM64 = range(11, 20)

# Words of 4 bytes that follow the three of a type's header: so many, and so many per `vlen`.
_FIXED_WORDS: Final = {_INT: 1, _ARRAY: 3, _VAR: 1, _DECL_TAG: 1}
_WORDS_EACH: Final = {_STRUCT: 3, _UNION: 3, _ENUM: 2, _FUNC_PROTO: 2, _DATASEC: 3, _ENUM64: 3}
_ALIASES: Final = frozenset({_TYPEDEF, _VOLATILE, _CONST, _RESTRICT, _TYPE_TAG})
_SIZED: Final = frozenset({_INT, _STRUCT, _UNION, _ENUM, _FLOAT, _ENUM64})

_POINTER_BYTES: Final = 8
_DEEPEST: Final = 32
"""Aliases of aliases, arrays of arrays and anonymous members in one another that are followed.
A real kernel needs 5; a garbled blob can have circles."""
_MOST_MEMBERS: Final = 100_000
"""Members looked at for one name. task_struct has 300; in a garbled blob each could be anonymous
and lead to 65,535 others."""


class MalformedBtfError(ProchistError):
    """Say that a blob is not BTF, or not whole."""


class Member(NamedTuple):
    """Where a member begins in its structure, and how long it is; both in bytes."""

    offset: int
    size: int


class Btf:
    """Answers where members of structures lie, by name, in one BTF blob.

    Raises: MalformedBtfError, from here or from any method.
    """

    def __init__(self, blob: bytes) -> None:
        if sys.byteorder != "little":
            raise MalformedBtfError("BTF is read on little-endian machines only")
        if len(blob) < _HEADER.size:
            raise MalformedBtfError(f"BTF of {len(blob)} bytes is shorter than its header")
        magic, version, _, header, type_at, type_bytes, text_at, text_bytes = _HEADER.unpack_from(
            blob
        )
        if magic != _MAGIC or version != 1:
            raise MalformedBtfError(f"not BTF version 1: magic {magic:#x}, version {version}")
        type_at, text_at = header + type_at, header + text_at
        if (
            header < _HEADER.size
            or type_at + type_bytes > len(blob)
            or text_at + text_bytes > len(blob)
            or type_bytes % 4
        ):
            raise MalformedBtfError(
                f"BTF is cut: {len(blob)} bytes do not hold what its header names"
            )
        self._texts = blob[text_at : text_at + text_bytes]
        self._words = array("I", blob[type_at : type_at + type_bytes])
        self._starts = _type_starts(self._words)
        self._structs: dict[str, list[int]] = {}

    def find_structs(self, *names: str) -> None:
        """Look for all these structures in one go, for `member` to know them.

        Raises: MalformedBtfError when one is not there.
        """
        wanted = {at: name for name in names for at in self._text_offsets(name)}
        words = self._words
        found: dict[str, list[int]] = {name: [] for name in names}
        for start in self._starts:
            if words[start] in wanted and words[start + 1] >> 24 & 31 == _STRUCT:
                found[wanted[words[start]]].append(start)
        missing = [name for name, starts in found.items() if not starts]
        if missing:
            raise MalformedBtfError(f"BTF has no struct {', '.join(missing)}")
        self._structs.update(found)

    def member(self, struct_name: str, path: str) -> Member:
        """Return where a member lies; `a.b` is member b of the structure that member a is.

        Members of anonymous structures and unions count as their holder's, as in C.
        Where the kernel has several structures of one name, those that have the
        member must agree on it.

        Raises: MalformedBtfError when there is no such member, or when it is a bit field.
        """
        if struct_name not in self._structs:
            self.find_structs(struct_name)
        places = set()
        for start in self._structs[struct_name]:
            place = self._place(start, path)
            if place is not None:
                places.add(place)
        if not places:
            raise MalformedBtfError(f"BTF has no member {path} of struct {struct_name}")
        if len(places) > 1:
            raise MalformedBtfError(f"BTF has several members {path} of struct {struct_name}")
        return places.pop()

    def struct_size(self, struct_name: str) -> int:
        """Return how many bytes a structure takes; of the first, where several have the name.

        Raises: MalformedBtfError when there is none.
        """
        if struct_name not in self._structs:
            self.find_structs(struct_name)
        return self._words[self._structs[struct_name][0] + 2]

    def has_member(self, struct_name: str, path: str) -> bool:
        """Say whether `member` would find it."""
        try:
            self.member(struct_name, path)
        except MalformedBtfError:
            return False
        return True

    def _place(self, start: int, path: str) -> Member | None:
        """Follow a path from the structure at `start`. None if it does not lead anywhere."""
        offset = 0
        names = path.split(".")
        for left, name in zip(range(len(names) - 1, -1, -1), names, strict=True):
            found = self._find(start, name.encode() + b"\0")
            if found is None:
                return None
            bits, type_id, bit_field = found
            if bit_field or bits % 8:
                raise MalformedBtfError(f"member {path} is a bit field")
            offset += bits // 8
            if not left:
                return Member(offset, self._size(type_id))
            inner = self._resolve(type_id)
            if inner is None or self._kind(inner) not in (_STRUCT, _UNION):
                return None
            start = inner
        return None

    def _find(self, start: int, name: bytes) -> tuple[int, int, bool] | None:
        """Return offset in bits, type and "is a bit field" of a member. None if not there."""
        texts = self._texts
        seen = 0
        level = [(start, 0)]
        for _ in range(_DEEPEST):
            below: list[tuple[int, int]] = []
            for holder, base in level:
                for name_at, type_id, bits, bit_field in self._members(holder):
                    seen += 1
                    if seen > _MOST_MEMBERS:
                        raise MalformedBtfError("BTF has a structure of too many members")
                    if name_at:
                        if texts.startswith(name, name_at):
                            return base + bits, type_id, bit_field
                    elif not bit_field:
                        inner = self._resolve(type_id)
                        if inner is not None and self._kind(inner) in (_STRUCT, _UNION):
                            below.append((inner, base + bits))
            level = below
        return None

    def _members(self, start: int) -> Iterator[tuple[int, int, int, bool]]:
        """Yield name, type, offset in bits and "is a bit field" of a structure's own members."""
        words = self._words
        info = words[start + 1]
        with_bit_sizes = info >> 31
        for at in range(start + 3, start + 3 + 3 * (info & 0xFFFF), 3):
            bits = words[at + 2]
            if with_bit_sizes:
                yield words[at], words[at + 1], bits & 0xFFFFFF, bool(bits >> 24)
            else:
                yield words[at], words[at + 1], bits, False

    def _resolve(self, type_id: int) -> int | None:
        """Return where the type behind typedefs and qualifiers starts. None for void."""
        for _ in range(_DEEPEST):
            if type_id == 0:
                return None
            if type_id > len(self._starts):
                raise MalformedBtfError(f"BTF has no type {type_id}")
            start = self._starts[type_id - 1]
            if self._kind(start) not in _ALIASES:
                return start
            type_id = self._words[start + 2]
        raise MalformedBtfError("BTF has a circle of types")

    def _size(self, type_id: int) -> int:
        """Return the bytes that a value of this type takes."""
        count = 1
        for _ in range(_DEEPEST):
            start = self._resolve(type_id)
            kind = 0 if start is None else self._kind(start)
            if start is not None and kind == _ARRAY:
                type_id = self._words[start + 3]
                count *= self._words[start + 5]
                continue
            if kind == _PTR:
                return count * _POINTER_BYTES
            if start is not None and kind in _SIZED:
                return count * self._words[start + 2]
            raise MalformedBtfError(f"a type of kind {kind} has no size")
        raise MalformedBtfError("BTF has a circle of types")

    def _kind(self, start: int) -> int:
        return self._words[start + 1] >> 24 & 31

    def _text_offsets(self, name: str) -> frozenset[int]:
        """Return every offset at which this text can be named: whole, or the tail of another."""
        text = name.encode() + b"\0"
        found = []
        at = self._texts.find(text)
        while at >= 0:
            if at:
                found.append(at)
            at = self._texts.find(text, at + 1)
        return frozenset(found)


def _type_starts(words: "array[int]") -> "array[int]":
    """Return the index of each type's first word; type n is at [n - 1].

    Raises: MalformedBtfError when the types do not end where the blob says.
    """
    fixed = [3 + _FIXED_WORDS.get(kind, 0) for kind in range(32)]
    each = [_WORDS_EACH.get(kind, 0) for kind in range(32)]
    starts = array("I")
    append = starts.append
    at, end = 0, len(words)
    while at + 2 < end:
        append(at)
        info = words[at + 1]
        kind = info >> 24 & 31
        at += fixed[kind] + each[kind] * (info & 0xFFFF)
        if not 0 < kind < _KINDS:
            raise MalformedBtfError(f"BTF has a type of the unknown kind {kind}")
    if at != end:
        raise MalformedBtfError("BTF is cut inside a type")
    return starts
