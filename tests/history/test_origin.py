r"""Origin: cgroup paths as they are seen on real hosts, one or more of each maker."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prochist.history.origin import find_container, find_unit

ID = "3f0cbb1f9b7ef4a6a4d5a6d1f5f2f2b0c9f2d8e47a3a1f2f6c5b4e3d2c1b0a99"
OTHER = "a" * 64
POD = "pod0b2f6f2e_5a1c_4a8b_9d5a_0c7a1f0c9b3e"
USER = "/user.slice/user-1000.slice/user@1000.service"

PATHS = [
    # systemd
    ("/", None, None),
    ("/init.scope", "init.scope", None),
    ("/system.slice", None, None),
    ("/system.slice/ssh.service", "ssh.service", None),
    ("/system.slice/system-getty.slice/getty@tty1.service", "getty@tty1.service", None),
    ("/system.slice/foo.service/worker/3", "foo.service", None),
    ("/system.slice/docker.socket", "docker.socket", None),
    ("/system.slice/boot-efi.mount", "boot-efi.mount", None),
    (
        r"/system.slice/system-systemd\x2dcryptsetup.slice/systemd-cryptsetup@luks\x2d1.service",
        r"systemd-cryptsetup@luks\x2d1.service",
        None,
    ),
    (r"/system.slice/srv-a\x2db.mount", r"srv-a\x2db.mount", None),
    ("/system.slice/_cpu.service", "cpu.service", None),
    ("/user.slice/user-1000.slice/session-3.scope", "session-3.scope", None),
    (f"{USER}/init.scope", "user@1000.service", None),
    (f"{USER}/app.slice/app-firefox-4711.scope", "app-firefox-4711.scope", None),
    (f"{USER}/app.slice/dbus.service", "dbus.service", None),
    (f"{USER}/app.slice", "user@1000.service", None),
    (
        f"{USER}/app.slice/app-org.gnome.Terminal.slice/vte-spawn-1c8f.scope",
        "vte-spawn-1c8f.scope",
        None,
    ),
    ("/machine.slice", None, None),
    # docker: cgroupfs, systemd, rootless, docker in docker
    (f"/docker/{ID}", None, ID),
    (f"/docker/{ID}/system.slice/cron.service", None, ID),
    (f"/system.slice/docker-{ID}.scope", f"docker-{ID}.scope", ID),
    (f"/system.slice/docker-{ID}.scope/init.scope", f"docker-{ID}.scope", ID),
    (f"{USER}/user.slice/docker-{ID}.scope", f"docker-{ID}.scope", ID),
    (f"/docker/{OTHER}/docker/{ID}", None, ID),
    ("/system.slice/docker.service", "docker.service", None),
    # podman: root, its payload below, the monitor, rootless, inside of a service, cgroupfs
    (f"/machine.slice/libpod-{ID}.scope", f"libpod-{ID}.scope", ID),
    (f"/machine.slice/libpod-{ID}.scope/container", f"libpod-{ID}.scope", ID),
    (f"/machine.slice/libpod-conmon-{ID}.scope", f"libpod-conmon-{ID}.scope", None),
    (f"{USER}/user.slice/libpod-{ID}.scope/container", f"libpod-{ID}.scope", ID),
    (f"/system.slice/web.service/libpod-payload-{ID}", "web.service", ID),
    ("/system.slice/web.service/supervisor", "web.service", None),
    (f"/libpod_parent/libpod-{ID}", None, ID),
    # containerd and nerdctl
    (f"/system.slice/nerdctl-{ID}.scope", f"nerdctl-{ID}.scope", ID),
    (f"/default/{ID}", None, ID),
    # kubernetes: systemd and cgroupfs drivers with containerd, CRI-O and docker; kind
    (
        f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-{POD}.slice/cri-containerd-{ID}.scope",
        f"cri-containerd-{ID}.scope",
        ID,
    ),
    (
        f"/kubepods.slice/kubepods-{POD}.slice/crio-{ID}.scope",
        f"crio-{ID}.scope",
        ID,
    ),
    (
        f"/kubepods.slice/kubepods-{POD}.slice/crio-conmon-{ID}.scope",
        f"crio-conmon-{ID}.scope",
        None,
    ),
    (
        f"/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-{POD}.slice/docker-{ID}.scope",
        f"docker-{ID}.scope",
        ID,
    ),
    ("/kubepods/burstable/pod0b2f6f2e-5a1c-4a8b-9d5a-0c7a1f0c9b3e/" + ID, None, ID),
    ("/kubepods/besteffort/pod0b2f6f2e-5a1c-4a8b-9d5a-0c7a1f0c9b3e", None, None),
    (f"/kubepods/pod0b2f6f2e/crio-{ID}", None, ID),
    (
        f"/system.slice/containerd.service/kubepods-burstable-{POD}.slice:cri-containerd:{ID}",
        "containerd.service",
        ID,
    ),
    (
        f"/system.slice/docker-{OTHER}.scope/kubelet.slice/kubelet-kubepods.slice/cri-containerd-{ID}.scope",
        f"docker-{OTHER}.scope",
        ID,
    ),
    # LXC, LXD, Incus, Proxmox
    ("/lxc.payload.web", None, "web"),
    ("/lxc.payload.web-1.2/system.slice/nginx.service", None, "web-1.2"),
    ("/lxc.monitor.web", None, None),
    ("/lxc.payload/web/init.scope", None, "web"),
    ("/lxc.monitor/web", None, None),
    ("/lxc/101/ns/system.slice/cron.service", None, "101"),
    ("/lxc/web", None, "web"),
    ("/lxc", None, None),
    # systemd-nspawn, libvirt
    ("/machine.slice/machine-web.scope", "machine-web.scope", "web"),
    (r"/machine.slice/machine-web\x2dtest.scope/payload", r"machine-web\x2dtest.scope", "web-test"),
    (
        "/machine.slice/machine-web.scope/payload/system.slice/cron.service",
        "machine-web.scope",
        "web",
    ),
    ("/machine.slice/machine-web.scope/supervisor", "machine-web.scope", None),
    ("/machine.slice/systemd-nspawn@web.service/payload", "systemd-nspawn@web.service", "web"),
    ("/machine.slice/systemd-nspawn@web.service/supervisor", "systemd-nspawn@web.service", None),
    (
        r"/machine.slice/machine-qemu\x2d1\x2dvm.scope/libvirt/emulator",
        r"machine-qemu\x2d1\x2dvm.scope",
        None,
    ),
    (
        r"/machine.slice/machine-lxc\x2d7\x2dbox.scope",
        r"machine-lxc\x2d7\x2dbox.scope",
        "lxc-7-box",
    ),
    # ECS
    (f"/ecs/6cd1a4f6b4114e3b8b0d1a2b3c4d5e6f/{ID}", None, ID),
    # neither
    ("/some/where", None, None),
    (f"/docker/{ID[:-1]}", None, None),
    (f"/docker/{ID.upper()}", None, None),
    ("/process.scope.d/x", None, None),
    (r"/system.slice/\xff\x1b.service", r"\xff\x1b.service", None),
    ("/system.slice/" + "x" * 260 + ".service", None, None),
    ("/../other", None, None),
    ("", None, None),
]


@pytest.mark.parametrize(("path", "unit", "container"), PATHS)
def test_a_path_tells_its_unit_and_container(
    path: str, unit: str | None, container: str | None
) -> None:
    assert (find_unit(path), find_container(path)) == (unit, container)


@given(st.text(max_size=300))
def test_any_text_has_an_answer(path: str) -> None:
    unit, container = find_unit(path), find_container(path)

    assert unit is None or unit in path
    assert container is None or container


def test_a_long_hostile_path_does_not_take_long() -> None:
    path = "/" + "-".join(["a"] * 2000) + "/" + "a:" * 2000 + "/" + "b-" * 2000 + ".scope"

    assert find_container(path) is None
    assert find_unit(path) is None
