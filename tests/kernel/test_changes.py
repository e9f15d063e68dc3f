"""What changes in a life: ids, session, name, tracer; each once, although threads repeat it."""

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.live import Acting, History

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize("threads", ["0", "5"])
def test_a_change_of_ids_is_one_change_although_threads_repeat_it(
    history: History, threads: str
) -> None:
    with Acting("change_ids", "all", threads) as actor:
        assert actor.said() == actor.pid
        life = history.life(actor.pid, actor.since_ns, uid=65534, euid=65534, gid=54321)
        assert history.id_changes(life) == [("gid", 54321, 54321), ("uid", 65534, 65534)]
        (execution,) = history.execs(life)
        assert (execution["uid"], execution["gid"]) == (os.getuid(), os.getgid())


@pytest.mark.parametrize("threads", ["0", "5"])
def test_a_change_of_the_effective_id_alone_is_told_apart(history: History, threads: str) -> None:
    with Acting("change_ids", "effective", threads) as actor:
        actor.said()
    life = history.ended(actor.pid, actor.since_ns)
    assert history.id_changes(life) == [("uid", 0, 65534), ("uid", 0, 0)]
    assert (life["uid"], life["euid"]) == (0, 0)


@pytest.fixture
def set_id_program() -> Iterator[Path]:
    """Make a program with the set-uid bit, where any user can execute it."""
    folder = Path(tempfile.mkdtemp(prefix="prochist-set-id-"))
    try:
        if os.statvfs(folder).f_flag & os.ST_NOSUID:
            pytest.skip(f"{folder.parent} is mounted nosuid")
        folder.chmod(0o755)
        program = folder / "set-id"
        shutil.copy("/bin/true", program)
        os.chown(program, 54321, 54321)
        program.chmod(0o755 | stat.S_ISUID)
        yield program
    finally:
        shutil.rmtree(folder)


def test_a_set_id_program_runs_as_its_owner(history: History, set_id_program: Path) -> None:
    with Acting("set_id_program", set_id_program, "65534") as actor:
        pid, status = actor.said()
    assert status == 0
    life = history.ended(pid, actor.since_ns)
    assert (life["uid"], life["euid"]) == (65534, 54321)
    assert history.id_changes(life) == [("uid", 65534, 65534), ("uid", 65534, 54321)]
    (execution,) = history.execs(life)
    assert execution["uid"] == 65534


def test_a_new_name_is_recorded_whatever_its_bytes(history: History) -> None:
    with Acting("rename") as actor:
        actor.said()
        life = history.life(actor.pid, actor.since_ns, comm="(a)\n\\xff) R 1")
        assert history.events(life) == [("comm", "first name"), ("comm", "(a)\n\\xff) R 1")]


def test_a_new_session_is_recorded(history: History) -> None:
    with Acting("new_session") as actor:
        pid, _ = actor.said()
    life = history.ended(pid, actor.since_ns)
    assert history.events(life) == [("sid", None)]
    assert life["sid"] == pid
    assert life["tty"] is None


def test_a_tracer_is_recorded_when_it_comes_and_when_it_goes(history: History) -> None:
    with Acting("trace_another") as actor:
        pid, _ = actor.said()
        tracer = history.life(actor.pid, actor.since_ns)
    life = history.ended(pid, actor.since_ns)
    assert [kind for kind, _ in history.events(life)] == ["ptrace_attach", "ptrace_detach"]
    attached, detached = history.ask(
        "SELECT * FROM events WHERE process_id = ? ORDER BY id", life["id"]
    )
    assert str(actor.pid) in attached["detail"].split()
    assert attached["other_id"] == tracer["id"]
    assert detached["other_id"] in {tracer["id"], None}
