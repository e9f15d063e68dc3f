"""A small history in which everything happens that a timeline can tell, hostile texts included."""

from pathlib import Path

from tests.history_builder import SECOND, T0, HistoryBuilder

SECOND_BOOT = "0c0c0c0c-1111-4222-8333-444444444444"
HOSTILE = (
    "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
    "\x1b]0;owned\x07\n\r\t\u202e\u2028 \\xff ' \" & <!-- ]]> \x00 \ud7ff 😀"
)
"""What somebody may put into argv; bytes that are not UTF-8 are stored as \\xNN."""


def story(path: Path) -> None:
    """Write it: eight lives in two boots of one host, with a gap between them.

    1 sshd, running before the recorder, 2 its session: forks, becomes ann, execs a shell,
    3 a child that execs twice, is traced by 2, dumps core and is killed, 4 one whose end was
    not seen, 5 hostile argv, 6 only its end was seen, 7 a kernel thread, 8 in the next boot.
    """
    b = HistoryBuilder(path)
    sshd, shell = b.image(["/usr/sbin/sshd", "-D"]), b.image(["bash", "-l"], exe="/bin/bash")
    env, worker = b.image(["env", "work"]), b.image(["work", "a b"], exe="/opt/work")
    root = b.origin(0, "root", unit="ssh.service", cgroup="/system.slice/ssh.service")
    ann = b.origin(1000, "ann", login_uid=1000, login_user="ann", session=3, tty="pts/0")
    b.life(100, T0 - 3600 * SECOND, None, image=sshd, origin=root, start_source=1, ppid=1)
    b.life(
        *(200, T0 + SECOND, T0 + 60 * SECOND, 0),
        image=shell,
        origin=ann,
        parent_id=1,
        ppid=100,
        exec_count=1,
        exec_at_ns=T0 + 3 * SECOND,
        exec_source=3,
    )
    b.insert("id_change", lifetime=2, at_ns=T0 + 2 * SECOND, kind=1, real=1000, effective=1000)
    b.insert("id_change", lifetime=2, at_ns=T0 + 2 * SECOND, kind=0, real=1000, effective=1000)
    b.insert("event", lifetime=2, at_ns=T0 + 2 * SECOND, kind=0)
    b.life(
        *(300, T0 + 10 * SECOND, T0 + 20 * SECOND, 139),
        image=worker,
        origin=ann,
        parent_id=2,
        ppid=200,
        exec_count=2,
        exec_at_ns=T0 + 12 * SECOND,
        exec_source=3,
        exec_origin=root,
        cpu_user_us=1_500_000,
        cpu_system_us=20_000,
        max_rss_kib=2048,
        read_bytes=4096,
        write_bytes=0,
        minor_faults=7,
        major_faults=0,
        voluntary_switches=1,
        involuntary_switches=2,
    )
    at = T0 + 11 * SECOND
    b.insert(
        *("earlier_exec",),
        lifetime=3,
        ordinal=1,
        at_ns=at,
        image=env,
        origin=ann,
        exec_source=3,
    )
    detail = b.text("200 2")
    b.insert("event", lifetime=3, at_ns=T0 + 13 * SECOND, kind=2, detail=detail, other=2)
    b.insert("event", lifetime=3, at_ns=T0 + 14 * SECOND, kind=3)
    b.insert("event", lifetime=3, at_ns=T0 + 15 * SECOND, kind=1, detail=b.text("new\x1b[31m"))
    b.insert("event", lifetime=3, at_ns=T0 + 20 * SECOND, kind=4)
    b.life(
        *(301, T0 + 30 * SECOND, T0 + 50 * SECOND, None),
        parent_id=2,
        ppid=200,
        end_source=2,
        ended_after_ns=T0 + 40 * SECOND,
    )
    docker = b.origin(0, "root", container_id="f00d" * 16)
    hostile = b.image(["sh", "-c", HOSTILE], comm="<b>x</b>\x1b[1m")
    b.life(
        *(302, T0 + 31 * SECOND, T0 + 32 * SECOND, 1 << 8),
        image=hostile,
        origin=docker,
        parent_id=2,
        ppid=200,
        sid=200,
    )
    b.life(303, None, T0 + 35 * SECOND, 0, image=None, origin=None, ppid=None)
    b.life(2, T0 - 3600 * SECOND, None, is_kernel_thread=1, image=None, origin=None, ppid=0)
    later = T0 + 1000 * SECOND
    boot = b.boot(SECOND_BOOT, at_ns=later)
    b.life(100, later + SECOND, None, image=sshd, origin=root, boot=boot)
    b.gap(T0 + 33 * SECOND, T0 + 34 * SECOND, lost=812)
    b.gap(T0 + 70 * SECOND, later, kind=1)
    b.recording(T0, T0 + 70 * SECOND)
    b.recording(later, later + 100 * SECOND)
    b.close()
