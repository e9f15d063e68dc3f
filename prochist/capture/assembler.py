"""eBPF instructions: calls and labels become the bytes that bpf(2) loads.

Pure. Knows how instructions are encoded, and nothing of maps, helpers or what a
program is for. Little endian only, as are all architectures that the exec probe
knows. What a program that is too far to jump over or a number that does not fit
would become is a bug of the program: ValueError.

Source: Documentation/bpf/standardization/instruction-set.rst, Linux 6.18.
"""

import struct
from enum import IntEnum
from typing import Final

_INSTRUCTION: Final = struct.Struct("<BBhi")
INSTRUCTION_BYTES: Final = _INSTRUCTION.size

_LD, _LDX, _ST, _STX, _ALU, _JMP, _ALU64 = 0, 1, 2, 3, 4, 5, 7
_IMM, _MEM = 0x00, 0x60
_FROM_REGISTER = 0x08
_PSEUDO_MAP_FD = 1


class Register(IntEnum):
    """R0 results; R1 to R5 arguments, lost in a call; R6 to R9 kept; FRAME the stack's top."""

    R0 = 0
    R1 = 1
    R2 = 2
    R3 = 3
    R4 = 4
    R5 = 5
    R6 = 6
    R7 = 7
    R8 = 8
    R9 = 9
    FRAME = 10


class Size(IntEnum):
    """How much one load or store moves."""

    WORD = 0x00  # 4 bytes
    HALF = 0x08
    BYTE = 0x10
    DOUBLE = 0x18  # 8 bytes


SIZE_OF_BYTES: Final = {1: Size.BYTE, 2: Size.HALF, 4: Size.WORD, 8: Size.DOUBLE}


class Operation(IntEnum):
    """What an arithmetic instruction does to its first operand."""

    ADD = 0x00
    SUB = 0x10
    MUL = 0x20
    OR = 0x40
    AND = 0x50
    LSH = 0x60
    RSH = 0x70
    XOR = 0xA0
    MOV = 0xB0


class Condition(IntEnum):
    """When a jump is taken; comparisons are of 64 bits, unsigned unless S stands before."""

    ALWAYS = 0x00
    EQ = 0x10
    GT = 0x20
    GE = 0x30
    SET = 0x40
    NE = 0x50
    SGT = 0x60
    SGE = 0x70
    LT = 0xA0
    LE = 0xB0
    SLT = 0xC0
    SLE = 0xD0


class Assembler:
    """Collects instructions in order; a label is a jump's target, before or after it."""

    def __init__(self) -> None:
        self._code: list[tuple[int, int, int, int]] = []
        self._labels: dict[str, int] = {}
        self._jumps: list[tuple[int, str]] = []

    def label(self, name: str) -> None:
        """Name the place of the next instruction."""
        if name in self._labels:
            raise ValueError(f"label {name!r} is there twice")
        self._labels[name] = len(self._code)

    def load(self, size: Size, to: Register, base: Register, offset: int = 0) -> None:
        """Load from memory at base + offset, with zeros above."""
        self._emit(_LDX | _MEM | size, to, base, offset, 0)

    def store(self, size: Size, base: Register, offset: int, value: Register | int) -> None:
        """Store a register, or a constant of 32 bits with its sign, at base + offset."""
        if isinstance(value, Register):
            self._emit(_STX | _MEM | size, base, value, offset, 0)
        else:
            self._emit(_ST | _MEM | size, base, 0, offset, value)

    def compute(self, operation: Operation, to: Register, operand: Register | int) -> None:
        """Change a register by another, or by a constant of 32 bits with its sign; 64 bits wide."""
        self._operate(_ALU64 | operation, to, operand)

    def compute32(self, operation: Operation, to: Register, operand: Register | int) -> None:
        """Change a register as `compute`, 32 bits wide, zeros above."""
        self._operate(_ALU | operation, to, operand)

    def jump(self, condition: Condition, left: Register, right: Register | int, to: str) -> None:
        """Go to a label when the condition holds between left and right."""
        self._jumps.append((len(self._code), to))
        self._operate(_JMP | condition, left, right)

    def goto(self, to: str) -> None:
        """Go to a label."""
        self._jumps.append((len(self._code), to))
        self._emit(_JMP | Condition.ALWAYS, 0, 0, 0, 0)

    def call(self, helper: int) -> None:
        """Call a helper of the kernel by its number; arguments R1 to R5, result R0."""
        self._emit(_JMP | 0x80, 0, 0, 0, helper)

    def exit(self) -> None:
        """Leave the program; R0 is its result."""
        self._emit(_JMP | 0x90, 0, 0, 0, 0)

    def load_constant(self, to: Register, value: int) -> None:
        """Load 64 bits; takes the place of two instructions."""
        self._load_wide(to, 0, value)

    def load_map(self, to: Register, fd: int) -> None:
        """Load the address of the map that a descriptor stands for; takes two instructions."""
        self._load_wide(to, _PSEUDO_MAP_FD, fd)

    def assemble(self) -> bytes:
        """Resolve the jumps and return the program's bytes."""
        code = list(self._code)
        for at, name in self._jumps:
            if name not in self._labels:
                raise ValueError(f"nothing has the label {name!r}")
            distance = self._labels[name] - at - 1
            if not -0x8000 <= distance <= 0x7FFF:
                raise ValueError(f"label {name!r} is too far for a jump: {distance} instructions")
            opcode, registers, _, constant = code[at]
            code[at] = (opcode, registers, distance, constant)
        return b"".join(_INSTRUCTION.pack(*instruction) for instruction in code)

    def _operate(self, opcode: int, to: Register, operand: Register | int) -> None:
        if isinstance(operand, Register):
            self._emit(opcode | _FROM_REGISTER, to, operand, 0, 0)
        else:
            self._emit(opcode, to, 0, 0, operand)

    def _load_wide(self, to: Register, kind: int, value: int) -> None:
        if not -(1 << 63) <= value < 1 << 64:
            raise ValueError(f"{value} does not fit into 64 bits")
        low, high = struct.unpack("<ii", struct.pack("<Q", value & 0xFFFF_FFFF_FFFF_FFFF))
        self._emit(_LD | _IMM | Size.DOUBLE, to, kind, 0, low)
        self._emit(0, 0, 0, 0, high)

    def _emit(self, opcode: int, to: int, source: int, offset: int, constant: int) -> None:
        if not -0x8000 <= offset <= 0x7FFF:
            raise ValueError(f"offset {offset} does not fit into 16 bits")
        if not -0x8000_0000 <= constant <= 0x7FFF_FFFF:
            raise ValueError(f"constant {constant} does not fit into 32 bits with a sign")
        self._code.append((opcode, source << 4 | to, offset, constant))
