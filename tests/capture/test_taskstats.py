"""Taskstats: bytes of a real kernel, invented ones, and the live kernel."""

import errno
import os
import resource
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prochist.capture import genetlink, taskstats
from prochist.capture.connector import read_drops
from prochist.capture.genetlink import MessageError
from prochist.capture.taskstats import (
    AGROUP,
    DATAGRAM_SIZE,
    RECORD_SIZE,
    NotAccountingError,
    TaskRecord,
    VersionError,
)

if TYPE_CHECKING:
    from prochist.capture.taskstats import Subscription

# `sh -c 'exit 3'`, and a program of two threads and a main thread that joins them.
CAPTURED = Path(__file__).parent.parent / "data" / "taskstats-v16-6.18-x86_64"
U32 = st.integers(0, 2**32 - 1)
U64 = st.integers(0, 2**64 - 1)
RECORDS = st.builds(
    TaskRecord,
    U32,
    st.integers(0, 255),
    U64,
    st.binary(min_size=16, max_size=16),
    *[U32] * 4,
    *[U64] * 10,
    U32,
    U64,
    U32,
    *[U64] * 6,
)


def captured() -> list[bytes]:
    data = CAPTURED.read_bytes()
    datagrams = []
    while data:
        (length,) = struct.unpack_from("=I", data)
        datagrams.append(data[:length])
        data = data[length:]
    return datagrams


def a_record() -> TaskRecord:
    return TaskRecord._make(
        b"name".ljust(16, b"\0") if field == "comm" else 100 + number
        for number, field in enumerate(TaskRecord._fields)
    )


def reduced(datagram: bytes) -> TaskRecord:
    record = taskstats.reduce_record(datagram)
    assert record is not None
    return taskstats.decode_task_record(record)


def test_a_captured_process_without_threads_is_one_record() -> None:
    record = reduced(captured()[0])

    assert (record.exit_code, record.flag & AGROUP) == (0x300, AGROUP)
    assert record.comm.rstrip(b"\0") == b"sh"
    assert record.pid == record.tgid
    assert record.group_tgid == 0
    assert record.max_rss_kib > 500
    assert record.minor_faults > 10
    assert record.cpu_ns > 0


def test_the_sums_of_a_captured_process_are_those_of_its_tasks() -> None:
    *threads, last = (reduced(datagram) for datagram in captured()[1:])
    tasks = [*threads, last]

    assert len(threads) == 2
    assert all(not thread.flag & AGROUP for thread in threads)
    assert last.flag & AGROUP
    assert {task.tgid for task in tasks} == {last.pid}
    assert last.group_tgid == last.pid
    assert last.group_cpu_ns == sum(task.cpu_ns for task in tasks)
    assert last.group_user_us == sum(task.user_us for task in tasks)
    assert last.group_system_us == sum(task.system_us for task in tasks)
    assert last.group_voluntary_switches == sum(task.voluntary_switches for task in tasks)
    assert last.group_involuntary_switches == sum(task.involuntary_switches for task in tasks)


def test_taking_by_position_and_by_attribute_agree() -> None:
    for datagram in captured():
        assert taskstats.reduce_record(datagram) == taskstats.decode_exit(datagram)
        assert len(datagram) <= DATAGRAM_SIZE


@given(RECORDS)
def test_a_record_comes_back_as_it_was_encoded(record: TaskRecord) -> None:
    encoded = taskstats.encode_task_record(record)

    assert len(encoded) == RECORD_SIZE
    assert taskstats.decode_task_record(encoded) == record
    assert list(taskstats.decode_task_records(encoded * 3)) == [record] * 3


@given(RECORDS, st.integers(400, 900), st.sampled_from([12, 13, 14, 16, 17, 18, 999]))
def test_a_record_is_cut_out_of_the_struct_of_any_later_version(
    record: TaskRecord, size: int, version: int
) -> None:
    record = record._replace(group_tgid=max(1, record.group_tgid))
    datagram = taskstats.encode_datagram(record, version=version, size=size)

    assert reduced(datagram) == record


def test_a_memoryview_of_a_slot_is_reduced_like_bytes() -> None:
    datagram = captured()[-1]
    slot = memoryview(bytearray(datagram.ljust(DATAGRAM_SIZE, b"\xff")))

    assert taskstats.reduce_record(slot[: len(datagram)]) == taskstats.reduce_record(datagram)


def test_attributes_that_align_the_struct_are_passed_over() -> None:
    (reply,) = genetlink.decode_messages(captured()[0])
    assert isinstance(reply, genetlink.Reply)
    nested = genetlink.decode_attributes(reply.attributes[0].payload)
    empty = (6, b"")
    inner = [(kind, bytes(payload)) for kind, payload in nested]
    padded = genetlink.encode_attributes([inner[0], empty, inner[1]])
    datagram = genetlink.encode_reply(31, 2, [empty, (4, padded)], seq=0)

    assert taskstats.reduce_record(datagram) == taskstats.reduce_record(captured()[0])


def test_version_15_is_refused_with_a_clear_word() -> None:
    datagram = taskstats.encode_datagram(a_record(), version=15)

    assert taskstats.reduce_record(datagram) is None
    with pytest.raises(VersionError, match=r"version 15 \(Linux 6\.14") as caught:
        taskstats.decode_exit(datagram)
    assert "6.16" in (caught.value.hint or "")


def test_a_version_without_tgid_is_refused() -> None:
    with pytest.raises(VersionError, match="version 11"):
        taskstats.decode_exit(taskstats.encode_datagram(a_record(), version=11))


def test_a_struct_shorter_than_what_is_known_is_refused() -> None:
    with pytest.raises(VersionError, match="399 bytes"):
        taskstats.check_version(18, 399)


def test_what_is_not_about_an_exiting_task_is_no_record() -> None:
    assert taskstats.reduce_record(b"") is None
    assert taskstats.reduce_record(genetlink.encode_acknowledgement(3, 0)) is None
    assert taskstats.reduce_record(genetlink.encode_reply(16, 1, [(1, b"\x1f\0")], seq=1)) is None


@given(st.binary(max_size=1300))
def test_any_bytes_are_a_record_or_none(datagram: bytes) -> None:
    record = taskstats.reduce_record(datagram)

    assert record is None or len(record) == RECORD_SIZE


@given(st.sampled_from(captured()), st.integers(0, 60), st.binary(min_size=1, max_size=4))
def test_garbled_headers_are_a_record_or_none(datagram: bytes, at: int, garbage: bytes) -> None:
    garbled = datagram[:at] + garbage + datagram[at + len(garbage) :]
    record = taskstats.reduce_record(garbled)

    assert record is None or len(record) == RECORD_SIZE


@given(st.sampled_from(captured()), st.data())
def test_a_cut_datagram_is_no_record(datagram: bytes, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(datagram) - 1))

    assert taskstats.reduce_record(datagram[:cut]) is None


def test_a_run_of_records_that_is_cut_is_our_own_error() -> None:
    with pytest.raises(MessageError, match="not a whole number"):
        taskstats.decode_task_records(bytes(RECORD_SIZE + 1))
    with pytest.raises(MessageError, match="has 195 bytes"):
        taskstats.decode_task_record(bytes(RECORD_SIZE - 1))


# --- a socketpair plays the kernel --------------------------------------------


class Kernel:
    """Answers requests at the other end of a socketpair, one after the other."""

    def __init__(self, *answers: Callable[[int], list[bytes]]) -> None:
        self.socket, self._other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._answers = answers
        self.requests: list[bytes] = []
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()
        self._thread.join()
        self._other.close()

    def _run(self) -> None:
        for answer in self._answers:
            request = self._other.recv(4096)
            if not request:
                return
            self.requests.append(request)
            (seq,) = struct.unpack_from("=I", request, 8)
            for datagram in answer(seq):
                self._other.send(datagram)


def tell_family(seq: int) -> list[bytes]:
    return [genetlink.encode_reply(16, 1, [(1, struct.pack("=H", 77))], seq=seq)]


def tell_struct(version: int = 16) -> Callable[[int], list[bytes]]:
    def answer(seq: int) -> list[bytes]:
        datagram = bytearray(taskstats.encode_datagram(a_record(), version=version))
        struct.pack_into("=I", datagram, 8, seq)
        return [bytes(datagram)]

    return answer


def refuse(code: int) -> Callable[[int], list[bytes]]:
    return lambda seq: [genetlink.encode_acknowledgement(seq, code)]


def test_registering_asks_for_family_and_struct_and_then_names_the_cpus() -> None:
    with Kernel(tell_family, tell_struct(17), refuse(0)) as kernel:
        assert taskstats.register(kernel.socket, "0-3") == (77, 17)

    assert b"TASKSTATS\0" in kernel.requests[0]
    assert struct.pack("=I", os.getpid()) in kernel.requests[1]
    assert b"0-3\0" in kernel.requests[2]


def test_a_record_that_comes_before_the_acknowledgement_is_not_taken_for_it() -> None:
    def late(seq: int) -> list[bytes]:
        return [*tell_struct()(seq), genetlink.encode_acknowledgement(seq, 0)]

    with Kernel(tell_family, tell_struct(), late) as kernel:
        taskstats.register(kernel.socket, "0")
        kernel.socket.setblocking(False)
        with pytest.raises(BlockingIOError):
            kernel.socket.recv(1)


def test_a_kernel_with_version_15_is_refused_before_any_record() -> None:
    with Kernel(tell_family, tell_struct(15)) as kernel, pytest.raises(VersionError, match="15"):
        taskstats.register(kernel.socket, "0")


def test_a_missing_permission_says_what_it_takes() -> None:
    with (
        Kernel(tell_family, refuse(errno.EPERM)) as kernel,
        pytest.raises(NotAccountingError, match="not permitted") as caught,
    ):
        taskstats.register(kernel.socket, "0")

    assert "CAP_NET_ADMIN" in (caught.value.hint or "")


def test_a_kernel_without_the_family_says_where_to_look() -> None:
    with Kernel(refuse(errno.ENOENT)) as kernel, pytest.raises(NotAccountingError) as caught:
        taskstats.register(kernel.socket, "0")

    assert "namespace" in (caught.value.hint or "")


def test_a_kernel_that_says_nothing_is_given_up() -> None:
    with Kernel() as kernel, pytest.raises(NotAccountingError, match="within"):
        taskstats.register(kernel.socket, "0", timeout_s=0.05)


def test_unknown_cpus_are_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(NotAccountingError, match="which CPUs"):
        taskstats.open_taskstats(1 << 16, possible=tmp_path / "possible")


# --- the live kernel ------------------------------------------------------------


@pytest.fixture
def subscription() -> Iterator["Subscription"]:
    opened = taskstats.open_taskstats(8 << 20)
    yield opened
    taskstats.close_taskstats(opened)


def receive_records(opened: "Subscription", tgid: int, timeout_s: float = 5.0) -> list[TaskRecord]:
    """Return the records of one process up to that of its last task."""
    records = []
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        try:
            record = reduced(opened.socket.recv(DATAGRAM_SIZE))
        except BlockingIOError:
            time.sleep(0.001)
            continue
        if record.tgid == tgid:
            records.append(record)
            if record.flag & AGROUP:
                return records
    pytest.fail("the kernel sent no record of the last task")


@pytest.mark.kernel
def test_an_exit_status_is_that_of_waitpid(subscription: "Subscription") -> None:
    for program in (
        "exit 0",
        "exit 3",
        "exit 255",
        "kill -9 $$",
        "kill -15 $$",
        "ulimit -c 0; kill -11 $$",
    ):
        child = os.posix_spawn("/bin/sh", ["sh", "-c", program], os.environ)
        _, status = os.waitpid(child, 0)
        (record,) = receive_records(subscription, child)

        assert record.exit_code == status
        assert record.ppid == os.getpid()
        assert record.uid == os.getuid()


@pytest.mark.kernel
def test_all_threads_of_a_process_have_a_record(subscription: "Subscription") -> None:
    program = (
        "import threading\n"
        "threads = [threading.Thread(target=sum, args=(range(1000),)) for _ in range(50)]\n"
        "for thread in threads: thread.start()\n"
        "for thread in threads: thread.join()\n"
    )
    with subprocess.Popen([sys.executable, "-IS", "-c", program]) as child:
        records = receive_records(subscription, child.pid)

    assert len(records) == 51
    assert len({record.pid for record in records}) == 51
    assert records[-1].group_cpu_ns > 0


@pytest.mark.kernel
def test_the_end_of_a_leader_that_leaves_first_is_told_with_the_last_thread(
    subscription: "Subscription",
) -> None:
    exit_thread = {"x86_64": 60, "aarch64": 93}.get(os.uname().machine)
    if exit_thread is None:
        pytest.skip("the number of exit(2) on this architecture is not known here")
    program = (
        "import ctypes, os, threading, time\n"
        "def work():\n    time.sleep(0.05)\n    os._exit(5)\n"
        "threading.Thread(target=work).start()\n"
        f"ctypes.CDLL(None).syscall({exit_thread}, 0)\n"
    )
    with subprocess.Popen([sys.executable, "-I", "-c", program]) as child:
        leader, last = receive_records(subscription, child.pid)

    assert (leader.pid, leader.flag & AGROUP) == (child.pid, 0)
    assert last.pid != child.pid
    assert last.exit_code == 5 << 8
    assert child.returncode == 5


@pytest.mark.kernel
def test_an_exec_from_a_thread_keeps_the_process_and_its_sums(subscription: "Subscription") -> None:
    program = (
        "import os, threading, time\n"
        "threading.Thread(target=os.execv, args=('/bin/sh', ['sh', '-c', 'exit 9'])).start()\n"
        "time.sleep(5)\n"
    )
    with subprocess.Popen([sys.executable, "-I", "-c", program]) as child:
        old_leader, last = receive_records(subscription, child.pid)

    assert not old_leader.flag & AGROUP
    assert last.pid == child.pid
    assert last.exit_code == 9 << 8
    assert last.group_cpu_ns >= last.cpu_ns
    assert last.group_cpu_ns <= old_leader.cpu_ns + last.cpu_ns


@pytest.mark.kernel
def test_an_overrun_is_silent_and_counted() -> None:
    opened = taskstats.open_taskstats(4096)
    try:
        for _ in range(20):
            os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)

        received = 0
        while True:
            try:
                assert taskstats.reduce_record(opened.socket.recv(DATAGRAM_SIZE)) is not None
            except BlockingIOError:
                break
            received += 1

        assert read_drops(opened.socket) > 0
        assert received + read_drops(opened.socket) >= 20
    finally:
        taskstats.close_taskstats(opened)


@pytest.mark.kernel
def test_nobody_but_the_kernel_can_put_a_datagram_into_the_socket(
    subscription: "Subscription",
) -> None:
    port = subscription.socket.getsockname()[0]
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, genetlink.NETLINK_GENERIC) as other:
        other.bind((0, 0))
        with pytest.raises(ConnectionRefusedError):
            other.sendto(taskstats.encode_datagram(a_record()), (port, 0))


@pytest.mark.kernel
def test_a_process_in_a_network_namespace_of_its_own_is_told_why() -> None:
    program = (
        "import ctypes\n"
        "from prochist.capture import taskstats\n"
        "assert ctypes.CDLL(None).unshare(0x40000000) == 0\n"
        "try:\n    taskstats.open_taskstats(65536)\n"
        "except taskstats.NotAccountingError as error:\n    print(error.message, '|', error.hint)\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", program], check=True, stdout=subprocess.PIPE, text=True
    ).stdout

    assert "sends none" in said
    assert "network namespace" in said


@pytest.mark.kernel
def test_the_storage_layers_bytes_are_told_as_proc_io_names_them(
    subscription: "Subscription", tmp_path: Path
) -> None:
    path = str(tmp_path / "written")
    child = os.fork()
    if not child:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
        os.write(descriptor, b"x" * 300_000)
        os.fsync(descriptor)
        os._exit(0)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    io = dict(line.split(": ") for line in Path(f"/proc/{child}/io").read_text().splitlines())
    os.waitpid(child, 0)
    (record,) = receive_records(subscription, child)

    assert record.write_bytes == int(io["write_bytes"]) // 1024 * 1024
    assert record.read_bytes == int(io["read_bytes"]) // 1024 * 1024
    if int(io["write_bytes"]):  # 0 on tmpfs
        assert record.write_bytes >= 300_000


@pytest.mark.kernel
def test_the_faults_of_a_process_are_those_of_its_rusage(subscription: "Subscription") -> None:
    child = os.fork()
    if not child:
        memory = bytearray(8 << 20)
        os._exit(len(memory) & 1)
    _, _, usage = os.wait4(child, 0)
    (record,) = receive_records(subscription, child)

    assert isinstance(usage, resource.struct_rusage)
    assert abs(record.minor_faults - usage.ru_minflt) <= 2
    assert abs(record.max_rss_kib - usage.ru_maxrss) <= usage.ru_maxrss * 0.05


@pytest.mark.kernel
def test_a_user_without_rights_is_told_what_it_takes() -> None:
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.setuid(65534)
        try:
            taskstats.open_taskstats(1 << 16)
        except NotAccountingError as error:
            os.write(writing, f"{error.message} | {error.hint}".encode())
        os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    said = os.read(reading, 4096).decode()
    os.close(reading)

    assert "not permitted" in said
    assert "CAP_NET_ADMIN" in said
