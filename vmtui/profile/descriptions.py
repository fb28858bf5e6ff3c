"""What each key of a profile, the settings or serve.toml means, in one line: for editors through the JSON Schema."""

from __future__ import annotations

from vmtui.core.policy import Allow, Role
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
from vmtui.profile.serving import Serve, WebSettings
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
    Serve: {
        "listen": 'Addresses to listen at, "ADDRESS:PORT" or "[IPV6]:PORT".',
        "keys": "The file that says who may come in.",
        "host_key": "The private key that the server has; without it one of its own.",
        "host_key_grace": "How long a new host key is announced before it takes the place of the old one.",
        "login_timeout": "How long a login may take.",
        "keepalive": "How often a silent client is asked whether it is there; after three times it is gone.",
        "connections": "How many connections there may be.",
        "connections_per_person": "How many of them one person may have.",
        "unauthenticated": "How many of those who have not proved a key; then the silent ones go first.",
        "unauthenticated_per_address": "How many of them from one address, of IPv6 from one /64.",
        "sessions": "How many sessions there may be, over SSH and in browsers.",
        "sessions_per_person": "How many of them one person may have.",
        "sessions_per_connection": "How many of them one connection may have.",
        "recordings": "Record sessions on a terminal, where the role does not say otherwise.",
        "recording_size": "How large a recording gets at most.",
        "web": "The console in a browser, with vmtui serve --web.",
    },
    WebSettings: {
        "listen": 'The address to listen at, "ADDRESS:PORT".',
        "names": "Names by which browsers know this host; links have the first.",
        "tls": "Speak TLS; without it wherever others can reach the address.",
        "certificate": "A certificate as PEM file; without it one that is signed by itself is made.",
        "key": "Its private key as PEM file.",
        "token_lifetime": "How long a link opens the console.",
        "login_lifetime": "How long a browser stays logged in.",
        "sessions": "How many sessions one login may have.",
        "connections": "How many connections that belong to no login.",
    },
    Role: {
        "about": "What it is for, in words.",
        "allow": "What it permits: one of the tables is enough.",
        "approval": "What a second person with another key must agree to.",
        "idle": "Sessions end after this time without a key; without it never.",
        "user": "The user of the host as whom sessions run, in that user's workspace.",
        "record": "Record its sessions on a terminal.",
    },
    Allow: {
        "verbs": 'What is permitted, "*" for all verbs.',
        "kinds": "On these kinds of resources; all without it.",
        "names": "On these names, as globs over PROFILE/KIND/NAME; all without it.",
        "labels": "On what has all these labels.",
        "own": "On what the person has made.",
    },
}


def of(spec_type: type, field: str) -> str:
    """The line for a field, wherever in the inheritance of `spec_type` it is defined; "" for unknown ones."""
    return next((FIELDS[base][field] for base in spec_type.__mro__ if field in FIELDS.get(base, {})), "")


def fields(kind: Kind) -> dict[str, str]:
    """All fields of a kind with their lines."""
    spec_type = SPECS[kind]
    return {name: of(spec_type, name) for name in spec_type.__struct_fields__}
