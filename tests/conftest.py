"""What all tests share: when `kernel` tests can run, and how Hypothesis searches.

Knows nothing of prochist: whether the live proc connector can be had is found out
with a plain socket, so that a broken prochist fails a test and never skips it.
"""

import errno
import functools
import os
import secrets
import signal
import socket
import struct
import time

import hypothesis
import pytest

NETLINK_CONNECTOR = 11
CN_IDX_PROC = 1
NLMSG_DONE = 3
ACK_WITHIN_SECONDS = 1.0

# No deadline: the machine that tests run on has other things to do. With CI set (.ci/run does), the
# examples are the same in each run, so that a red commit is red because of the commit.
hypothesis.settings.register_profile("developer", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "developer")


# A shell starts what it puts in the background with SIGINT ignored, and children inherit that:
# the tests that interrupt a command would wait for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test marked `kernel` where it cannot be run, and say why."""
    if item.get_closest_marker("kernel") is not None:
        reason = what_the_live_connector_lacks()
        if reason is not None:
            pytest.skip(reason)


@functools.cache
def what_the_live_connector_lacks() -> str | None:
    """Return why tests on the live connector cannot run, None if they can."""
    if os.geteuid() != 0:
        return "kernel: needs root"
    try:
        connector = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, NETLINK_CONNECTOR)
    except OSError as error:
        return f"kernel: no connector in this kernel: {error.strerror}"
    with connector:
        try:
            connector.bind((0, CN_IDX_PROC))
            return _silence(connector)
        except OSError as error:
            name = errno.errorcode.get(error.errno or 0, "?")
            return f"kernel: the proc connector refuses to be listened to: {name}, {error.strerror}"


def _silence(connector: socket.socket) -> str | None:
    """Send LISTEN and return None when its acknowledgement comes back in time.

    Source: cn_proc_mcast_ctl() in drivers/connector/cn_proc.c, which ignores requests
    from other pid and user namespaces without an answer.
    """
    ack = secrets.randbits(31)
    listen = struct.pack("=IIIIHHI", CN_IDX_PROC, 1, 0, ack, 4, 0, 1)
    header = struct.pack("=IHHII", 16 + len(listen), NLMSG_DONE, 0, 0, 0)
    connector.sendto(header + listen, (0, 0))
    until = time.monotonic() + ACK_WITHIN_SECONDS
    while (left := until - time.monotonic()) > 0:
        connector.settimeout(left)
        try:
            datagram = connector.recv(4096)
        except TimeoutError:
            break
        if len(datagram) >= 40 and struct.unpack_from("=I", datagram, 28)[0] == ack + 1:
            return None
    return (
        f"kernel: the proc connector did not answer within {ACK_WITHIN_SECONDS:g} s: not the"
        " initial pid and user namespace, or a kernel without CONFIG_PROC_EVENTS"
    )
