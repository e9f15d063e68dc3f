"""Run processes of known cost, and say what the kernel told their parent of each.

    burner.py RUNS THREADS CPU_MS MEMORY_MIB WRITE_KIB DIRECTORY

A line of JSON for each process: its pid, what wait4 said, and what /proc/PID/io
said of the zombie. A program of its own, so that the resident set of
the test runner, which fork() hands down, does not hide what is measured.
"""

import hashlib
import json
import mmap
import os
import sys
import threading
import time

BLOCK = bytes(256 * 1024)  # hashing so much releases the interpreter's lock


def burn(cpu_s: float) -> None:
    while time.thread_time() < cpu_s:
        hashlib.sha256(BLOCK).digest()


def write(path: str, kib: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.write(descriptor, os.urandom(kib * 1024))
    os.fsync(descriptor)
    os.close(descriptor)


def live(threads: int, cpu_s: float, memory_mib: int, write_kib: int, directory: str) -> None:
    memory = mmap.mmap(-1, memory_mib << 20)
    for offset in range(0, len(memory), mmap.PAGESIZE):
        memory[offset] = 1

    def work(number: int) -> None:
        write(os.path.join(directory, f"{os.getpid()}-{number}"), write_kib // threads)  # noqa: PTH118
        burn(cpu_s / threads)

    others = [threading.Thread(target=work, args=(number,)) for number in range(1, threads)]
    for thread in others:
        thread.start()
    work(0)
    for thread in others:
        thread.join()


def main() -> None:
    runs, threads, cpu_ms, memory_mib, write_kib = map(int, sys.argv[1:6])
    directory = sys.argv[6]
    for _ in range(runs):
        pid = os.fork()
        if not pid:
            live(threads, cpu_ms / 1000, memory_mib, write_kib, directory)
            os._exit(7)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        with open(f"/proc/{pid}/io", encoding="ascii") as lines:  # noqa: PTH123
            io = dict(line.split(": ") for line in lines.read().splitlines())
        _, status, usage = os.wait4(pid, 0)
        row = {
            "pid": pid,
            "status": status,
            "cpu_us": round((usage.ru_utime + usage.ru_stime) * 1e6),
            "system_us": round(usage.ru_stime * 1e6),
            "max_rss_kib": usage.ru_maxrss,
            "minor_faults": usage.ru_minflt,
            "major_faults": usage.ru_majflt,
            "voluntary_switches": usage.ru_nvcsw,
            "involuntary_switches": usage.ru_nivcsw,
            "read_bytes": int(io["read_bytes"]),
            "write_bytes": int(io["write_bytes"]),
        }
        print(json.dumps(row), flush=True)  # noqa: T201
        for number in range(threads):
            os.unlink(os.path.join(directory, f"{pid}-{number}"))  # noqa: PTH108, PTH118


if __name__ == "__main__":
    main()
