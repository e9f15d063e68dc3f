"""/proc/PID/cgroup of v2, v1 and hybrid hosts, of zombies, and of nobody's making."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prochist.capture.cgroups import parse_cgroup

V2 = b"0::/system.slice/ssh.service\n"
V1 = (
    b"12:cpu,cpuacct:/system.slice/ssh.service\n"
    b"11:devices:/system.slice/ssh.service\n"
    b"3:cpuset:/\n"
    b"1:name=systemd:/system.slice/ssh.service\n"
)
HYBRID = V1 + V2
ID = b"4f1d" * 16


@pytest.mark.parametrize("text", [V2, V1, HYBRID])
def test_a_service_is_found_on_v2_v1_and_hybrid_hosts(text: bytes) -> None:
    assert parse_cgroup(text) == b"/system.slice/ssh.service"


def test_on_hybrid_hosts_a_v2_line_left_behind_does_not_count() -> None:
    text = b"1:name=systemd:/docker/" + ID + b"\n0::/system.slice/containerd.service\n"

    assert parse_cgroup(text) == b"/docker/" + ID


def test_on_hybrid_hosts_the_v2_line_counts_where_systemds_says_nothing() -> None:
    assert parse_cgroup(b"1:name=systemd:/\n0::/user.slice\n") == b"/user.slice"


def test_without_systemd_the_deepest_controller_counts() -> None:
    text = b"9:name=systemd:/\n8:pids:/lxc\n4:memory:/lxc/web/ns\n2:cpu:/\n0::/\n"

    assert parse_cgroup(text) == b"/lxc/web/ns"


def test_the_root_is_a_path_too() -> None:
    assert parse_cgroup(b"0::/\n") == b"/"
    assert parse_cgroup(b"2:cpu:/\n0::/\n") == b"/"


def test_a_cgroup_that_was_removed_keeps_its_path() -> None:
    assert parse_cgroup(b"0::/user.slice/gone.scope (deleted)\n") == b"/user.slice/gone.scope"


def test_a_zombie_on_v1_is_shown_in_the_root_which_says_nothing() -> None:
    zombie = b"4:memory:/\n1:name=systemd:/\n0::/\n"

    assert parse_cgroup(zombie, is_zombie=True) is None
    assert parse_cgroup(b"1:name=systemd:/\n" + V2, is_zombie=True) == b"/system.slice/ssh.service"


def test_a_zombie_on_v2_still_says_where_it_was() -> None:
    assert parse_cgroup(V2, is_zombie=True) == b"/system.slice/ssh.service"
    assert parse_cgroup(b"0::/\n", is_zombie=True) == b"/"


def test_hostile_names_stay_as_they_are() -> None:
    assert parse_cgroup(b"0::/a:b/\xff\x1b[31m/0::x\n") == b"/a:b/\xff\x1b[31m/0::x"


def test_a_path_outside_of_the_readers_namespace_is_kept() -> None:
    assert parse_cgroup(b"0::/../other\n") == b"/../other"


@pytest.mark.parametrize("text", [b"", b"\n", b"garbage", b"0:", b"0::", b"x::/a\n", b"0::a\n"])
def test_what_is_no_cgroup_file_says_nothing(text: bytes) -> None:
    assert parse_cgroup(text) is None


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_are_a_path_or_none(text: bytes, is_zombie: bool) -> None:
    path = parse_cgroup(text, is_zombie=is_zombie)

    assert path is None or path.startswith(b"/")


def test_this_process_has_a_path() -> None:
    path = parse_cgroup(Path(f"/proc/{os.getpid()}/cgroup").read_bytes())

    assert path is None or path.startswith(b"/")
