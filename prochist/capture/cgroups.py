"""/proc/PID/cgroup: the one path that says where a process belongs.

Pure: the file's bytes in, a path out. What the path means (a unit, a
container) is :mod:`prochist.history.origin`.

Source: man page cgroups(7), /proc/pid/cgroup; proc_cgroup_show() in
kernel/cgroup/cgroup.c, Linux 6.18.
"""

_DELETED = b" (deleted)"
_ROOT = b"/"


def parse_cgroup(text: bytes, *, is_zombie: bool = False) -> bytes | None:
    """Return the path of the cgroup that says most, or None when the file says nothing.

    A line is ``number:controllers:path``. Which line counts, the first that is not ``/``:

    1. ``name=systemd`` (v1, hybrid): systemd and all container runtimes keep it on
       such hosts, while the v2 line may stay behind with what started the container;
    2. ``0::`` (v2; the only line of such hosts);
    3. the deepest of the other controllers, for hosts without systemd.

    The kernel shows every zombie in ``/`` of the v1 hierarchies: with ``is_zombie`` their
    lines are left out, and None means unknown. Bytes stay as they are; the
    kernel allows any in a name but a newline and a slash.
    """
    systemd = unified = deepest = None
    for line in text.split(b"\n"):
        number, _, rest = line.partition(b":")
        controllers, colon, path = rest.partition(b":")
        if not colon or not path.startswith(b"/") or not number.isdigit():
            continue
        path = path.removesuffix(_DELETED)
        if number == b"0" and not controllers:
            unified = path
        elif is_zombie:
            continue
        elif controllers == b"name=systemd":
            systemd = path
        elif deepest is None or _depth(path) > _depth(deepest):
            deepest = path
    known = [path for path in (systemd, unified, deepest) if path is not None]
    telling = (path for path in known if path != _ROOT)
    # On v1 hosts the v2 line of a zombie is "/" because nothing lives there.
    fallback = None if is_zombie and _has_v1(text) else _ROOT
    return next(telling, fallback if known else None)


def _depth(path: bytes) -> int:
    return 0 if path == _ROOT else path.count(b"/")


def _has_v1(text: bytes) -> bool:
    return any(line and not line.startswith(b"0:") for line in text.split(b"\n"))
