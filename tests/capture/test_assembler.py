"""Instructions against the documented encoding: opcode, registers, offset, constant.

The expected bytes are written from instruction-set.rst, not taken from our output.
"""

import pytest

from prochist.capture.assembler import (
    INSTRUCTION_BYTES,
    SIZE_OF_BYTES,
    Assembler,
    Condition,
    Operation,
    Register,
    Size,
)

R0, R1, R2, R6, FRAME = Register.R0, Register.R1, Register.R2, Register.R6, Register.FRAME


def encoded(asm: Assembler) -> list[str]:
    """Return each instruction as `opcode registers offset constant`, in hexadecimal."""
    code = asm.assemble()
    assert len(code) % INSTRUCTION_BYTES == 0
    return [code[at : at + INSTRUCTION_BYTES].hex() for at in range(0, len(code), 8)]


def test_loads_carry_size_base_and_offset() -> None:
    asm = Assembler()
    asm.load(Size.DOUBLE, R6, R1, 16)
    asm.load(Size.WORD, R0, FRAME, -8)
    asm.load(Size.HALF, R0, R1)
    asm.load(Size.BYTE, R2, R6, 0x7FFF)
    assert encoded(asm) == [
        "7916100000000000",
        "61a0f8ff00000000",
        "6910000000000000",
        "7162ff7f00000000",
    ]


def test_stores_take_a_register_or_a_constant() -> None:
    asm = Assembler()
    asm.store(Size.DOUBLE, FRAME, -16, R6)
    asm.store(Size.WORD, R1, 4, R0)
    asm.store(Size.WORD, FRAME, -4, -1)
    asm.store(Size.BYTE, R1, 0, 7)
    assert encoded(asm) == [
        "7b6af0ff00000000",
        "6301040000000000",
        "620afcffffffffff",
        "7201000007000000",
    ]


@pytest.mark.parametrize(
    ("operation", "code"),
    [
        (Operation.ADD, 0x0),
        (Operation.SUB, 0x1),
        (Operation.MUL, 0x2),
        (Operation.OR, 0x4),
        (Operation.AND, 0x5),
        (Operation.LSH, 0x6),
        (Operation.RSH, 0x7),
        (Operation.XOR, 0xA),
        (Operation.MOV, 0xB),
    ],
)
def test_arithmetic_is_of_64_or_32_bits_by_a_register_or_a_constant(
    operation: Operation, code: int
) -> None:
    asm = Assembler()
    asm.compute(operation, R1, 0x1234)
    asm.compute(operation, R1, R2)
    asm.compute32(operation, R1, -2)
    asm.compute32(operation, R1, R2)
    assert encoded(asm) == [
        f"{code:x}701000034120000",
        f"{code:x}f21000000000000",
        f"{code:x}4010000feffffff",
        f"{code:x}c21000000000000",
    ]


@pytest.mark.parametrize(
    ("condition", "code"),
    [
        (Condition.EQ, 0x1),
        (Condition.GT, 0x2),
        (Condition.GE, 0x3),
        (Condition.SET, 0x4),
        (Condition.NE, 0x5),
        (Condition.SGT, 0x6),
        (Condition.SGE, 0x7),
        (Condition.LT, 0xA),
        (Condition.LE, 0xB),
        (Condition.SLT, 0xC),
        (Condition.SLE, 0xD),
    ],
)
def test_jumps_compare_with_a_register_or_a_constant(condition: Condition, code: int) -> None:
    asm = Assembler()
    asm.jump(condition, R1, 5, "here")
    asm.jump(condition, R1, R2, "here")
    asm.label("here")
    assert encoded(asm) == [
        f"{code:x}501010005000000",
        f"{code:x}d21000000000000",
    ]


def test_a_label_counts_instructions_from_behind_the_jump_forwards_and_backwards() -> None:
    asm = Assembler()
    asm.label("start")
    asm.goto("end")
    asm.load_constant(R1, 0)  # takes the place of two
    asm.goto("start")
    asm.label("end")
    asm.exit()
    assert encoded(asm) == [
        "0500030000000000",
        "1801000000000000",
        "0000000000000000",
        "0500fcff00000000",
        "9500000000000000",
    ]


def test_calls_and_the_exit() -> None:
    asm = Assembler()
    asm.call(130)
    asm.exit()
    assert encoded(asm) == ["8500000082000000", "9500000000000000"]


def test_wide_constants_are_two_instructions_and_maps_are_marked() -> None:
    asm = Assembler()
    asm.load_constant(R2, 0x1122334455667788)
    asm.load_constant(R2, -1)
    asm.load_map(R1, 7)
    assert encoded(asm) == [
        "1802000088776655",
        "0000000044332211",
        "18020000ffffffff",
        "00000000ffffffff",
        "1811000007000000",
        "0000000000000000",
    ]


def test_assembling_twice_gives_the_same() -> None:
    asm = Assembler()
    asm.goto("end")
    asm.exit()
    asm.label("end")
    asm.exit()
    assert asm.assemble() == asm.assemble()


def test_sizes_are_found_by_their_bytes() -> None:
    assert SIZE_OF_BYTES == {1: Size.BYTE, 2: Size.HALF, 4: Size.WORD, 8: Size.DOUBLE}


def test_what_cannot_be_encoded_is_refused_when_written() -> None:
    asm = Assembler()
    with pytest.raises(ValueError, match="16 bits"):
        asm.load(Size.WORD, R0, R1, 0x8000)
    with pytest.raises(ValueError, match="32 bits"):
        asm.compute(Operation.MOV, R0, 0x8000_0000)
    with pytest.raises(ValueError, match="64 bits"):
        asm.load_constant(R0, 1 << 64)


def test_labels_must_exist_once_and_be_near() -> None:
    asm = Assembler()
    asm.label("here")
    with pytest.raises(ValueError, match="twice"):
        asm.label("here")
    asm.goto("nowhere")
    with pytest.raises(ValueError, match="nowhere"):
        asm.assemble()
    far = Assembler()
    far.goto("far")
    for _ in range(0x8000):
        far.exit()
    far.label("far")
    with pytest.raises(ValueError, match="too far"):
        far.assemble()
