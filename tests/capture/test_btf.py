"""The BTF reader: on structures written by hand, a real kernel's, and on rubbish."""

import contextlib
import struct
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prochist.capture.btf import Btf, MalformedBtfError, Member
from tests.capture.btf_blob import ARRAY, CONST, ENUM, HEADER, KEPT, TYPEDEF, UNION, BtfBlob

FIXTURE = Path(__file__).parents[1] / "data" / "btf-6.18-x86_64"
KERNEL_BTF = Path("/sys/kernel/btf/vmlinux")


def nested_blob() -> BtfBlob:
    blob = BtfBlob()
    u32 = blob.integer("u32", 4)
    name = blob.add(TYPEDEF, name="id_t", size=blob.add(CONST, size=u32))
    inner = blob.struct("", 8, ("deep", name, 0), ("deeper", u32, 32))
    union = blob.struct("", 8, ("", inner, 0), ("wide", blob.integer("u64", 8), 0), kind=UNION)
    point = blob.struct("point", 8, ("x", u32, 0), ("y", u32, 32))
    enum = blob.add(ENUM, name="colour", size=4)
    blob.struct(
        "outer",
        64,
        ("first", u32, 0),
        ("", union, 64),
        ("place", point, 128),
        ("next", blob.pointer(point), 192),
        ("row", blob.array(u32, 6), 256),
        ("colour", enum, 448),
    )
    blob.struct("flags", 4, ("whole", u32, 0), ("bits", u32, 3 << 24 | 5), bit_sizes=True)
    return blob


def btf(blob: BtfBlob) -> Btf:
    return Btf(blob.build())


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("first", Member(0, 4)),
        ("deep", Member(8, 4)),
        ("deeper", Member(12, 4)),
        ("wide", Member(8, 8)),
        ("place", Member(16, 8)),
        ("place.y", Member(20, 4)),
        ("next", Member(24, 8)),
        ("row", Member(32, 24)),
        ("colour", Member(56, 4)),
    ],
)
def test_a_member_is_found_by_name_also_in_anonymous_structs_and_unions(
    path: str, expected: Member
) -> None:
    assert btf(nested_blob()).member("outer", path) == expected


def test_a_pointer_or_a_number_has_no_members() -> None:
    for path in ("next.x", "first.x", "place.z", "row.x", "nothing", "", "place."):
        with pytest.raises(MalformedBtfError, match="no member"):
            btf(nested_blob()).member("outer", path)
        assert not btf(nested_blob()).has_member("outer", path)


def test_a_bit_field_is_refused_and_its_neighbour_is_not() -> None:
    assert btf(nested_blob()).member("flags", "whole") == Member(0, 4)
    with pytest.raises(MalformedBtfError, match="bit field"):
        btf(nested_blob()).member("flags", "bits")


def test_a_struct_has_a_size_and_an_unknown_one_is_named() -> None:
    blob = btf(nested_blob())
    assert blob.struct_size("outer") == 64
    with pytest.raises(MalformedBtfError, match=r"no struct absent, gone$"):
        blob.find_structs("outer", "absent", "gone")


def test_a_union_or_a_typedef_of_the_name_is_not_the_struct() -> None:
    blob = BtfBlob()
    u32 = blob.integer("u32", 4)
    blob.add(TYPEDEF, name="thing", size=u32)
    blob.struct("thing", 4, ("a", u32, 0), kind=UNION)
    with pytest.raises(MalformedBtfError, match="no struct thing"):
        btf(blob).member("thing", "a")


def test_of_several_structs_of_one_name_the_one_with_the_member_counts() -> None:
    blob = BtfBlob()
    u32 = blob.integer("u32", 4)
    blob.struct("thing", 8, ("a", u32, 0), ("same", u32, 32))
    blob.struct("thing", 16, ("b", u32, 64), ("same", u32, 96))
    assert btf(blob).member("thing", "b") == Member(8, 4)
    with pytest.raises(MalformedBtfError, match="several members same"):
        btf(blob).member("thing", "same")


def test_a_name_that_is_the_tail_of_another_text_is_found() -> None:
    blob = BtfBlob()
    u32 = blob.integer("u32", 4)
    blob.struct("something", 4, ("euid", u32, 0))
    inside = bytearray(blob.build())
    with pytest.raises(MalformedBtfError):
        Btf(bytes(inside)).member("thing", "uid")
    # As a writer that shares the ends of texts would name them.
    header = HEADER.unpack_from(inside)
    texts = header[3] + header[6]
    for name, text in ((b"something", b"thing"), (b"euid", b"uid")):
        old = inside.index(name, texts) - texts
        new = old + len(name) - len(text)
        at = inside.index(struct.pack("=I", old), HEADER.size)
        inside[at : at + 4] = struct.pack("=I", new)
    assert Btf(bytes(inside)).member("thing", "uid") == Member(0, 4)


def circle() -> BtfBlob:
    blob = BtfBlob()
    blob.add(TYPEDEF, name="a", size=1)
    blob.struct("s", 4, ("", 2, 0), ("a", 1, 0), ("r", 3, 0))
    blob.add(ARRAY, words=(3, 3, 2))
    return blob


@pytest.mark.parametrize("path", ["a", "r", "unknown", "a.b"])
def test_circles_of_types_end(path: str) -> None:
    with pytest.raises(MalformedBtfError):
        btf(circle()).member("s", path)


def test_structures_that_hold_each_other_thousandfold_end_soon() -> None:
    blob = BtfBlob()
    blob.struct("bomb", 4, *[("", 1, 0)] * 5000)
    reader = btf(blob)
    before = time.monotonic()
    with pytest.raises(MalformedBtfError, match="too many members"):
        reader.member("bomb", "x")
    assert time.monotonic() - before < 5


@pytest.mark.parametrize(
    "blob",
    [
        b"",
        b"\x9f\xeb\x01",
        bytes(64),
        HEADER.pack(0x9FEB, 1, 0, 24, 0, 0, 0, 0),  # written on a big-endian machine
        HEADER.pack(0xEB9F, 2, 0, 24, 0, 0, 0, 0),
        HEADER.pack(0xEB9F, 1, 0, 0, 0, 0, 0, 0),
        HEADER.pack(0xEB9F, 1, 0, 24, 0, 12, 12, 1),
        HEADER.pack(0xEB9F, 1, 0, 24, 0, 0xFFFFFFFC, 0, 0xFFFFFFFF),
        HEADER.pack(0xEB9F, 1, 0, 24, 0, 6, 6, 0) + bytes(6),
        HEADER.pack(0xEB9F, 1, 0, 24, 0, 12, 12, 0) + bytes(12),
        HEADER.pack(0xEB9F, 1, 0, 24, 0, 12, 12, 0) + struct.pack("=III", 0, 31 << 24, 0),
    ],
)
def test_what_is_not_btf_is_refused(blob: bytes) -> None:
    with pytest.raises(MalformedBtfError):
        Btf(blob)


def look_at_everything(blob: bytes) -> None:
    """Ask for all that the exec probe asks for; only MalformedBtfError may come of it."""
    with contextlib.suppress(MalformedBtfError):
        reader = Btf(blob)
        for name, members in KEPT.items():
            with contextlib.suppress(MalformedBtfError):
                assert reader.struct_size(name) >= 0
            for member in (*members.split(), "d_name.name", "mnt.mnt_root", "missing"):
                with contextlib.suppress(MalformedBtfError):
                    place = reader.member(name, member)
                    assert place.offset >= 0
                    assert place.size >= 0


def test_a_blob_cut_anywhere_is_refused() -> None:
    whole = FIXTURE.read_bytes()
    for length in range(len(whole)):
        with pytest.raises(MalformedBtfError):
            Btf(whole[:length])


@given(st.binary(max_size=400))
def test_rubbish_behind_a_header_gives_our_error_or_a_value(rubbish: bytes) -> None:
    types = len(rubbish) // 2 & ~3
    header = HEADER.pack(0xEB9F, 1, 0, 24, 0, types, types, len(rubbish) - types)
    look_at_everything(header + rubbish)


@given(
    st.lists(
        st.tuples(st.integers(0, 2306), st.integers(0, 255)),
        min_size=1,
        max_size=12,
    )
)
def test_a_garbled_blob_gives_our_error_or_a_value(changes: list[tuple[int, int]]) -> None:
    blob = bytearray(FIXTURE.read_bytes())
    for at, value in changes:
        blob[at % len(blob)] = value
    look_at_everything(bytes(blob))


def test_the_fixture_is_linux_6_18_on_x86_64() -> None:
    reader = Btf(FIXTURE.read_bytes())
    for name, members in KEPT.items():
        for member in members.split():
            assert reader.has_member(name, member), f"{name}.{member}"
    assert reader.member("task_struct", "tgid").size == 4
    assert reader.member("mm_struct", "arg_start").size == 8  # in an anonymous struct
    assert reader.member("dentry", "d_name.name").size == 8  # in an anonymous union
    assert reader.member("pid", "numbers").size == 0  # a flexible array
    assert reader.struct_size("upid") == 16


@pytest.mark.skipif(not KERNEL_BTF.exists(), reason="this kernel has no BTF")
def test_the_running_kernel_is_read_in_less_than_a_second() -> None:
    before = time.process_time()
    reader = Btf(KERNEL_BTF.read_bytes())
    reader.find_structs(*KEPT)
    assert reader.member("task_struct", "tgid").size == 4
    assert reader.member("linux_binprm", "filename").size == 8
    # Measured: 0.06 s for 5.5 MB; the bound has room for a slow machine, not for a second pass.
    assert time.process_time() - before < 1
