r"""Origin: a cgroup's path becomes a systemd unit and a container.

Pure; only the naming of each program that makes cgroups, one row of a table each.
Paths are text, with bytes that are not UTF-8 as ``\xNN``.

Source: src/basic/cgroup-util.c and src/basic/unit-name.c of systemd; the names that docker,
podman, containerd, CRI-O, kubelet, LXC and systemd-nspawn give in /sys/fs/cgroup.
"""

import re

# Units that own a cgroup; others (timers, paths, targets, devices) never do.
_UNIT = re.compile(r"[A-Za-z0-9:_.\\-]+(@[A-Za-z0-9:_.\\@-]*)?\.(service|scope|socket|mount|swap)")
_SLICE = re.compile(r"(-|[A-Za-z0-9:_.\\@-]+)\.slice")
_USER_MANAGER = re.compile(r"user@\d+\.service")
_LONGEST_UNIT = 255

_ID = r"(?P<id>[0-9a-f]{64})"
_NAME = r"(?P<id>[^/]+)"
# What one component of a path says, or two of which one is under the other: the first that
# matches counts. A pattern without an id is of a container's keeper, which is not inside of it.
_CONTAINER = tuple(
    re.compile(pattern)
    for pattern in (
        # podman's and CRI-O's monitor: libpod-conmon-….scope, crio-conmon-….scope
        r"(?:libpod|crio)-conmon-[0-9a-f]{64}(?:\.scope)?",
        # with systemd: docker-….scope, libpod-….scope, libpod-payload-… (podman, cgroups=split),
        # cri-containerd-….scope, nerdctl-….scope, crio-….scope; crio-… also without
        rf"[A-Za-z][A-Za-z_.-]*-{_ID}(?:\.scope)?",
        # kubepods-….slice:cri-containerd:…, the systemd form of a name in the hands of runc's
        # cgroupfs driver
        rf"[^:]*:[A-Za-z][A-Za-z_.-]*:{_ID}",
        # without systemd: docker/…, kubepods/burstable/pod…/…, ecs/…/…, and containerd's own
        _ID,
        # LXC from 4, LXD, Incus
        rf"lxc\.payload\.{_NAME}",
        # LXC before 3.1 and Proxmox; LXC from 3.1
        rf"lxc/{_NAME}",
        rf"lxc\.payload/{_NAME}",
        # systemd-nspawn, by hand and as a service; libvirt's LXC. Its virtual machines are no
        # containers.
        r"machine-[^/]+\.scope/supervisor",
        rf"machine-(?!qemu\\x2d){_NAME}\.scope",
        rf"systemd-nspawn@{_NAME}\.service/payload",
    )
)


def find_unit(path: str) -> str | None:
    r"""Return the systemd unit that a cgroup belongs to, or None when it belongs to none.

    The name is as ``systemctl`` shows it, so ``\x2d`` stays. Below a user's
    manager it is the unit of that manager (``app-firefox-123.scope``) and not
    ``user@1000.service``, in which all of a user's programs are; the manager itself is in
    the latter. What is in slices only, or in a cgroup that systemd did not make, has none.
    """
    unit, below = _first_unit(_components(path))
    if unit is not None and _USER_MANAGER.fullmatch(unit):
        of_user, _ = _first_unit(below)
        if of_user is not None and of_user != "init.scope":
            return of_user
    return unit


def find_container(path: str) -> str | None:
    """Return the id of the container that a cgroup belongs to, or None when it belongs to none.

    The 64 hexadecimal digits of docker, podman, containerd, CRI-O and kubernetes;
    the name for LXC, Incus and systemd-nspawn. With containers in
    containers it is the innermost. The processes that keep a
    container from outside (conmon, lxc monitor, nspawn's supervisor) are in none.
    """
    components = _components(path)
    for index in range(len(components) - 1, -1, -1):
        one = components[index]
        two = "/".join(components[max(0, index - 1) : index + 1])
        for pattern in _CONTAINER:
            if match := pattern.fullmatch(one) or pattern.fullmatch(two):
                return _unescape(match["id"]) if pattern.groups else None
    return None


def _components(path: str) -> list[str]:
    # A name that could be taken for a file of the kernel (cgroup.x, memory.x) has "_" before it.
    # Source: cg_escape() in src/basic/cgroup-util.c of systemd.
    return [part.removeprefix("_") for part in path.split("/") if part]


def _first_unit(components: list[str]) -> tuple[str | None, list[str]]:
    for index, part in enumerate(components):
        if _SLICE.fullmatch(part):
            continue
        if _UNIT.fullmatch(part) and len(part) <= _LONGEST_UNIT:
            return part, components[index + 1 :]
        break
    return None, []


def _unescape(name: str) -> str:
    r"""Undo systemd's escaping of a name: ``\x2d`` is ``-``."""
    raw = re.sub(
        rb"\\x([0-9a-f]{2})",
        lambda match: bytes.fromhex(match[1].decode()),
        name.encode("utf-8", "surrogateescape"),
    )
    return raw.decode("utf-8", "backslashreplace")
