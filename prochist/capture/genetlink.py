"""Generic netlink wire format: requests, replies, and the attributes in both.

Pure functions, no I/O. It knows the control family (which turns a family's name
into its number) and no other; what attributes mean is for whoever asked.

Source: include/uapi/linux/netlink.h and genetlink.h, Linux 6.18.
"""

import struct
from typing import NamedTuple

from prochist.errors import ProchistError

NETLINK_GENERIC = 16
NLM_F_REQUEST = 1
NLM_F_ACK = 4
NLMSG_ERROR = 2
NLMSG_MIN_TYPE = 16
"""Smallest message type that is a family; below are the types of netlink itself."""

GENL_ID_CTRL = 16
CTRL_CMD_NEWFAMILY = 1
CTRL_CMD_GETFAMILY = 3
CTRL_ATTR_FAMILY_ID = 1
CTRL_ATTR_FAMILY_NAME = 2

_HEADER = struct.Struct("=IHHII")  # nlmsghdr: len, type, flags, seq, pid
_COMMAND = struct.Struct("=BBH")  # genlmsghdr: cmd, version, reserved
_ATTRIBUTE = struct.Struct("=HH")  # nlattr: len, type
_ERROR = struct.Struct("=i")
_U16 = struct.Struct("=H")
_TYPE_MASK = 0x3FFF
"""The upper two bits say that attributes are nested, or in network byte order."""


class MessageError(ProchistError):
    """Say that bytes are no generic netlink message, and why."""


class Attribute(NamedTuple):
    """One attribute; ``payload`` points into the message, without header and padding."""

    kind: int
    payload: memoryview


class Reply(NamedTuple):
    """A message of a family."""

    family: int
    seq: int
    command: int
    attributes: list[Attribute]


class Acknowledgement(NamedTuple):
    """What became of the request with number ``seq``; ``error`` is an errno, 0 for done."""

    seq: int
    error: int


def encode_request(
    family: int, command: int, attributes: list[tuple[int, bytes]], *, seq: int, ack: bool
) -> bytes:
    """Encode a request; the kernel answers it with the same ``seq``.

    With ``ack`` there is an :class:`Acknowledgement` even when all went well;
    without, only when it did not.
    """
    flags = NLM_F_REQUEST | (NLM_F_ACK if ack else 0)
    return encode_reply(family, command, attributes, seq=seq, flags=flags)


def encode_reply(
    family: int, command: int, attributes: list[tuple[int, bytes]], *, seq: int, flags: int = 0
) -> bytes:
    """Encode a message as the kernel sends it."""
    body = _COMMAND.pack(command, 1, 0) + encode_attributes(attributes)
    return _HEADER.pack(_HEADER.size + len(body), family, flags, seq, 0) + body


def encode_acknowledgement(seq: int, error: int) -> bytes:
    """Encode what the kernel says of a request; ``error`` is an errno, 0 for done."""
    body = _ERROR.pack(-error) + _HEADER.pack(_HEADER.size, 0, 0, seq, 0)
    return _HEADER.pack(_HEADER.size + len(body), NLMSG_ERROR, 0, seq, 0) + body


def encode_attributes(attributes: list[tuple[int, bytes]]) -> bytes:
    """Encode attributes one after the other, each padded to four bytes."""
    return b"".join(
        _ATTRIBUTE.pack(_ATTRIBUTE.size + len(payload), kind) + payload + bytes(-len(payload) % 4)
        for kind, payload in attributes
    )


def decode_messages(datagram: bytes | memoryview) -> list[Reply | Acknowledgement]:
    """Decode the messages of one datagram, in their order; those of netlink itself are left out.

    Raises:
        MessageError: garbled or cut.

    """
    view = memoryview(datagram)
    messages: list[Reply | Acknowledgement] = []
    at = 0
    while at < len(view):
        if len(view) - at < _HEADER.size:
            raise _cut("a message header", at)
        length, kind, _, seq, _ = _HEADER.unpack_from(view, at)
        if not _HEADER.size <= length <= len(view) - at:
            raise _cut(f"a message of {length} bytes", at)
        body = view[at + _HEADER.size : at + length]
        if kind == NLMSG_ERROR:
            if len(body) < _ERROR.size:
                raise _cut("an acknowledgement", at)
            messages.append(Acknowledgement(seq, -_ERROR.unpack_from(body)[0]))
        elif kind >= NLMSG_MIN_TYPE:
            if len(body) < _COMMAND.size:
                raise _cut("a command header", at)
            attributes = decode_attributes(body[_COMMAND.size :])
            messages.append(Reply(kind, seq, body[0], attributes))
        at += (length + 3) & ~3
    return messages


def decode_attributes(view: memoryview) -> list[Attribute]:
    """Decode the attributes that fill ``view``, one level deep.

    Raises:
        MessageError: garbled or cut.

    """
    attributes = []
    at = 0
    while at < len(view):
        if len(view) - at < _ATTRIBUTE.size:
            raise _cut("an attribute header", at)
        length, kind = _ATTRIBUTE.unpack_from(view, at)
        if not _ATTRIBUTE.size <= length <= len(view) - at:
            raise _cut(f"an attribute of {length} bytes", at)
        attributes.append(Attribute(kind & _TYPE_MASK, view[at + _ATTRIBUTE.size : at + length]))
        at += (length + 3) & ~3
    return attributes


def find_attribute(attributes: list[Attribute], kind: int) -> memoryview | None:
    """Return the payload of the first attribute of that kind, or None when there is none."""
    return next((payload for found, payload in attributes if found == kind), None)


def encode_family_request(name: str, *, seq: int) -> bytes:
    """Encode the question which number a family has."""
    attributes = [(CTRL_ATTR_FAMILY_NAME, name.encode() + b"\0")]
    return encode_request(GENL_ID_CTRL, CTRL_CMD_GETFAMILY, attributes, seq=seq, ack=False)


def decode_family(reply: Reply) -> int:
    """Return the number of the family that a reply of the control family tells.

    Raises:
        MessageError: it tells none.

    """
    payload = find_attribute(reply.attributes, CTRL_ATTR_FAMILY_ID)
    if reply.family != GENL_ID_CTRL or payload is None or len(payload) < _U16.size:
        error = "the generic netlink controller did not tell the number of a family"
        raise MessageError(error)
    return int(_U16.unpack_from(payload)[0])


def _cut(what: str, at: int) -> MessageError:
    return MessageError(f"a generic netlink message is garbled: {what} at byte {at} does not fit")
