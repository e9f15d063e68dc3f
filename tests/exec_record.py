"""An exec record to vary: what several rooms test with."""

import os

from prochist.capture.execrecord import ExecRecord
from prochist.clock import BootNs, MonotonicNs

SAMPLE = ExecRecord(
    monotonic_ns=MonotonicNs(5),
    tgid=10,
    old_tid=10,
    start_boottime_ns=BootNs(4),
    parent_tgid=1,
    uid=1000,
    gid=1000,
    euid=0,
    egid=1000,
    login_uid=None,
    session=7,
    sid=9,
    ns_pid=3,
    tty_nr=34816,
    cgroup_id=1,
    cgroups_key=2,
    exe_device=os.makedev(8, 1),
    exe_inode=3,
    comm=b"a",
    exec_path=b"./a",
    exe=b"/srv/a",
    cwd=b"/srv",
    argc=2,
    argv_size=4,
    argv=b"a\0b\0",
)
