"""What each key of a profile or of the settings means, in one line: for editors through the JSON Schema."""

from __future__ import annotations

from vmtui.core.resource import Kind
from vmtui.core.specs import (
    SPECS,
    ContainerSpec,
    DiskSpec,
    NetworkSpec,
    Ready,
    SandboxSpec,
    Spec,
    VmSpec,
    Workload,
)
from vmtui.profile.settings import Settings

FIELDS: dict[type, dict[str, str]] = {
    Ready: {
        "log": "A regular expression that a line of the log matches.",
        "tcp": "A port of the resource that accepts a connection.",
        "http": 'A path, or ":PORT/path", that answers 200 to 399.',
        "exec": "A command that succeeds inside.",
        "exit_code": "A one-shot job: it ends with this code.",
        "timeout": "After this time it counts as failed.",
        "interval": "The time between two attempts.",
    },
    Spec: {
        "backend": "The technology that makes it: auto takes the best that is usable here.",
        "labels": "Texts of your own, for people and tools.",
        "ready": "When it counts as ready; exactly one condition.",
    },
    Workload: {
        "restart": "When it is started again after it ended by itself.",
        "stop_grace_period": "The time from the request to stop until it is killed.",
        "depends_on": "Workloads as KIND/NAME that are started before this one.",
    },
    NetworkSpec: {
        "subnet": 'An IPv4 network such as "10.88.0.0/24"; without it a free /24 is taken and kept.',
        "gateway": "The host's address in the subnet; the first one without it.",
        "internal": "No way out: neither NAT nor forwarding.",
        "dns": "Resolve the names of members, and all others through the host.",
        "dhcp": "Serve leases to members that ask, as VMs do.",
        "domain": "The domain of the members' names.",
        "mtu": "The largest packet in bytes.",
    },
    DiskSpec: {
        "size": "The size that the guest sees; needed unless source is given. It can grow.",
        "source": "An image file to import when the disk is made.",
        "source_format": "The format of source; it is never guessed.",
        "shrink": "Allow a smaller size than it has. What is beyond is lost.",
    },
    VmSpec: {
        "cpus": "The number of virtual processors.",
        "memory": "The guest's memory.",
        "kernel": "A kernel to boot directly: a file, or deb:PACKAGE.",
        "initrd": "An initramfs file for the kernel.",
        "rootfs": "A container image that is booted from memory, with vmtui's own init.",
        "cmdline": "More of the kernel's command line.",
        "command": "With rootfs: run this in place of the image's command.",
        "environment": "With rootfs: variables for the command.",
        "disks": "Names of disks of this profile, in the order the guest sees them.",
        "networks": "Names of networks of this profile, one interface each.",
        "network_mode": "What a VM that names no network gets.",
        "ports": 'Published ports, "HOST:GUEST" or "ADDRESS:HOST:GUEST/udp".',
        "hostname": "The guest's name; that of the resource without it.",
    },
    ContainerSpec: {
        "image": "docker://…, oci:…, oci-archive:…, docker-archive:…, dir:…, or deb:PACKAGE.",
        "command": "In place of the image's command.",
        "entrypoint": "In place of the image's entrypoint.",
        "environment": "Variables, added to the image's.",
        "user": "USER[:GROUP], names or numbers, in place of the image's.",
        "working_dir": "In place of the image's.",
        "volumes": '"./folder:/target", "volume:/target", each with ":ro" if it must not be written.',
        "tmpfs": "Paths that are empty memory file systems.",
        "networks": "Names of networks of this profile, one interface each.",
        "ports": 'Published ports, "HOST:CONTAINER" or "ADDRESS:HOST:CONTAINER/udp".',
        "hostname": "The container's name; that of the resource without it.",
        "memory": "The most memory it may use.",
        "cpus": "The most processor time it may use, in processors.",
        "pids_limit": "The most processes it may have.",
        "read_only": "Its root file system cannot be written.",
        "cap_add": "Capabilities beyond the default ones.",
        "cap_drop": "Capabilities to take away, or ALL.",
        "tty": "Give it a terminal: vmtui console then attaches to it.",
        "stop_signal": "In place of the image's, SIGTERM if that has none.",
        "log_max_size": "The log is rotated when it is this large.",
    },
    SandboxSpec: {
        "module": "A .wasm or .wat file.",
        "args": "Arguments of the module.",
        "environment": "Its variables; it sees no others.",
        "volumes": 'Folders it may open, "./folder:/target", read-only unless ":rw" is added.',
        "entrypoint": "The exported function to call.",
        "fuel": "How much it may compute, about one unit an instruction.",
        "timeout": "How long it may run.",
        "memory": "The most linear memory, all memories together.",
    },
    Settings: {
        "theme": "The name of a theme; without it one that fits the terminal.",
        "ascii": "Signs and frames from ASCII alone; without it where the terminal or the locale needs it.",
        "mouse": "Take the mouse; without it the terminal's own selection works.",
        "refresh": "The time between two measurements of what runs.",
        "columns": "The columns of the list, in this order, as far as the terminal is wide enough; all without it.",
        "detach_key": "The key that leaves a console.",
        "keys": "Other keys for what the panel can do: the id of an action, and one key or several with commas.",
    },
}


def of(spec_type: type, field: str) -> str:
    """The line for a field, wherever in the inheritance of `spec_type` it is defined; "" for unknown ones."""
    return next((FIELDS[base][field] for base in spec_type.__mro__ if field in FIELDS.get(base, {})), "")


def fields(kind: Kind) -> dict[str, str]:
    """All fields of a kind with their lines."""
    spec_type = SPECS[kind]
    return {name: of(spec_type, name) for name in spec_type.__struct_fields__}
