"""cgroup paths as container runtimes and systemd make them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sltrace.names.containers import CgroupIdentity, identify

ID = "0123456789abcdef" * 4
UID = "3f1e2d4c-1234-5678-9abc-def012345678"
UID_ = UID.replace("-", "_")

SHAPES = {
    f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID_}.slice/"
    f"cri-containerd-{ID}.scope": CgroupIdentity(
        ID, "containerd", UID, f"cri-containerd-{ID}.scope"
    ),
    # Guaranteed pods have no level for their class.
    f"/kubepods.slice/kubepods-pod{UID_}.slice/crio-{ID}.scope": CgroupIdentity(
        ID, "cri-o", UID, f"crio-{ID}.scope"
    ),
    f"/kubepods/besteffort/pod{UID}/{ID}": CgroupIdentity(ID, "", UID, ""),
    f"/kubepods/pod{UID}/{ID}/init": CgroupIdentity(ID, "", UID, ""),
    f"/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/"
    f"kubelet-kubepods-besteffort-pod{UID_}.slice/cri-containerd-{ID}.scope": CgroupIdentity(
        ID, "containerd", UID, f"cri-containerd-{ID}.scope"
    ),
    f"/system.slice/containerd.service/kubepods-burstable-pod{UID_}.slice:cri-containerd:{ID}": (
        CgroupIdentity(ID, "containerd", UID, "containerd.service")
    ),
    f"/system.slice/docker-{ID}.scope": CgroupIdentity(ID, "docker", "", f"docker-{ID}.scope"),
    f"/system.slice/docker-{ID}.scope/init": CgroupIdentity(ID, "docker", "", f"docker-{ID}.scope"),
    f"/docker/{ID}": CgroupIdentity(ID, "docker", "", ""),
    f"/machine.slice/libpod-{ID}.scope": CgroupIdentity(ID, "podman", "", f"libpod-{ID}.scope"),
    f"/machine.slice/libpod-conmon-{ID}.scope": CgroupIdentity(
        "", "", "", f"libpod-conmon-{ID}.scope"
    ),
    f"/ecs/7f0a/{ID[:32]}-1234567890": CgroupIdentity(f"{ID[:32]}-1234567890", "ecs", "", ""),
    "/system.slice/nginx.service": CgroupIdentity("", "", "", "nginx.service"),
    r"/system.slice/dev-disk\x2dby.mount": CgroupIdentity("", "", "", "dev-disk-by.mount"),
    r"/system.slice/caf\xc3\xa9\x2d\xe2\x98\x95.service": CgroupIdentity(
        "", "", "", "café-☕.service"
    ),
    r"/system.slice/a\x1b\x5b.service": CgroupIdentity("", "", "", r"a\x1b\x5b.service"),
    r"/system.slice/a\xc3.service": CgroupIdentity(
        "", "", "", "a\N{REPLACEMENT CHARACTER}.service"
    ),
    f"/user.slice/user-1000.slice/user@1000.service/app.slice/app-gnome-{UID}.scope": (
        CgroupIdentity("", "", "", f"app-gnome-{UID}.scope")
    ),
    "/": CgroupIdentity(),
    "": CgroupIdentity(),
}


@pytest.mark.parametrize(("path", "identity"), SHAPES.items(), ids=range(len(SHAPES)))
def test_shapes(path: str, identity: CgroupIdentity) -> None:
    assert identify(path) == identity


@settings(max_examples=40)
@given(st.text(max_size=6000))
def test_any_text_is_a_path(path: str) -> None:
    found = identify(path)
    assert len(found.container_id) in (0, 64) or found.runtime == "ecs"
    assert len(found.pod_uid) <= 36
