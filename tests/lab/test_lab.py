"""The lab is what it claims to be: otherwise nothing that is tested in it is proved."""

from __future__ import annotations

import os
import stat
import subprocess
from itertools import product
from pathlib import Path

import pytest

from tests.lab.host.cache import SORTS, SUITES
from tests.lab.host.machine import HIDDEN
from tests.lab.support.guests import booted
from tests.lab.support.kernels import kernel

TIMEOUT_S = 60.0


def sh(script: str) -> str:
    """What it says. Raises AssertionError."""
    done = subprocess.run(["sh", "-ec", script], capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_kvm_runs_an_unmodified_kernel(tmp_path: Path) -> None:
    assert f"release {kernel().release}" in booted(kernel(), tmp_path, "echo release $(uname -r)")


def test_every_kernel_and_its_modules_are_there() -> None:
    for suite, sort in product(SUITES, SORTS):
        found = kernel(suite, sort)
        assert found.modules is not None
        assert (found.modules / "modules.dep").is_file()


def test_cgroup_v2_is_mounted_with_its_controllers() -> None:
    (line,) = (line for line in Path("/proc/mounts").read_text().splitlines() if " /sys/fs/cgroup " in line)
    assert line.split()[2] == "cgroup2"
    enabled = Path("/sys/fs/cgroup/cgroup.subtree_control").read_text().split()
    assert {"cpu", "cpuset", "io", "memory", "pids"} <= set(enabled)


@pytest.mark.parametrize("device", ["/dev/kvm", "/dev/vhost-net", "/dev/net/tun", "/dev/loop-control", "/dev/fuse"])
def test_the_device_opens(device: str) -> None:
    opened = os.open(device, os.O_RDWR)
    try:
        assert stat.S_ISCHR(os.fstat(opened).st_mode)
    finally:
        os.close(opened)


@pytest.mark.parametrize("place", HIDDEN)
def test_an_overlay_can_be_made_of(place: str) -> None:
    sh(f"""
    cd $(mktemp -d -p {place})
    mkdir lower upper work all
    echo below >lower/file
    mount -t overlay -o lowerdir=lower,upperdir=upper,workdir=work overlay all
    rm all/file
    test -c upper/file  # a whiteout
    umount all
    """)


def test_nftables_translates_addresses() -> None:
    rules = "add table ip lab; add chain ip lab post { type nat hook postrouting priority srcnat; }"
    added = f"{rules}; add rule ip lab post ip saddr 192.0.2.0/24 fib daddr type != local masquerade"
    assert "masquerade" in sh(f"unshare --net sh -ec 'nft \"{added}\"; nft list ruleset'")


def test_links_of_every_kind_can_be_made() -> None:
    sh("""unshare --net sh -ec '
    ip link add br0 type bridge vlan_filtering 1
    ip link add v0 type veth peer name v1
    ip link set v0 master br0
    ip link add vx0 type vxlan id 7 dstport 4789
    ip link add d0 type dummy
    ip tuntap add tap0 mode tap
    '""")


def test_namespaces_can_be_made_and_roots_be_left() -> None:
    assert sh("unshare --user --map-root-user --mount --pid --fork sh -c 'id -u'") == "0\n"
    sh("""
    cd $(mktemp -d)
    unshare --mount sh -ec 'mount -t tmpfs tmpfs $PWD; cd $PWD; mkdir old; pivot_root . old'
    """)


def test_a_file_system_on_a_loop_device_mounts() -> None:
    sh("""
    cd $(mktemp -d)
    truncate -s 16M disk && mkfs.ext4 -q disk && mkdir at && mount -o loop disk at && touch at/file && umount at
    """)
