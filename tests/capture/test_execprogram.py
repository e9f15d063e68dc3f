"""The exec probe's program: instructions for a kernel known from its BTF."""

import struct
from pathlib import Path

import pytest

from prochist.capture.btf import Btf, MalformedBtfError
from prochist.capture.execprogram import assemble_exec_program
from tests.capture.btf_blob import BtfBlob

FIXTURE = Path(__file__).parents[1] / "data" / "btf-6.18-x86_64"


def assemble(btf: Btf, *, wakes_reader: bool = True) -> bytes:
    return assemble_exec_program(
        btf, ring_fd=101, record_fd=102, losses_fd=103, wakes_reader=wakes_reader
    )


def test_the_program_takes_its_offsets_from_btf_and_its_maps_from_descriptors() -> None:
    btf = Btf(FIXTURE.read_bytes())
    code = assemble(btf)
    instructions = [struct.unpack_from("<BBhi", code, at) for at in range(0, len(code), 8)]
    maps = [
        constant
        for opcode, registers, _, constant in instructions
        if (opcode, registers >> 4) == (0x18, 1)
    ]
    assert maps == [102, 101, 103]
    added = {constant for opcode, _, _, constant in instructions if opcode == 0x07}
    for struct_name, member in (
        ("task_struct", "real_parent"),
        ("task_struct", "start_boottime"),
        ("mm_struct", "arg_end"),
        ("linux_binprm", "filename"),
        ("super_block", "s_dev"),
    ):
        assert btf.member(struct_name, member).offset in added
    assert instructions[-1][0] == 0x95


def test_a_reader_that_is_not_woken_is_another_program() -> None:
    btf = Btf(FIXTURE.read_bytes())
    assert assemble(btf, wakes_reader=True) != assemble(btf, wakes_reader=False)


def test_a_kernel_whose_types_are_of_another_size_is_refused() -> None:
    whole = FIXTURE.read_bytes()
    blob = BtfBlob()
    blob.struct("task_struct", 8, ("tgid", blob.integer("u8", 1), 0))
    with pytest.raises(MalformedBtfError, match="no struct"):
        assemble(Btf(blob.build()))
    shorter = whole.replace(struct.pack("=II", 1 << 24, 4), struct.pack("=II", 1 << 24, 2))
    assert shorter != whole
    with pytest.raises(MalformedBtfError, match="has 2 bytes, not 4"):
        assemble(Btf(shorter))
