"""Tries the whole thing: a real container, from the host's own programs, with all that every container gets."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shutil
import tempfile
from pathlib import Path

import msgspec

from vmtui.backends.oci.launch import Launch, clear, tail_of
from vmtui.backends.oci.logs import last_lines
from vmtui.backends.oci.observe import BACKEND
from vmtui.backends.oci.places import PinnedImage, Places
from vmtui.core.backend import Context, Desired, Probe, silent
from vmtui.core.errors import Fault, MissingCapability, OperationFailed
from vmtui.core.resource import Kind, Problem, Ref
from vmtui.core.specs import ContainerSpec
from vmtui.host.files import write_atomic
from vmtui.host.paths import Paths
from vmtui.host.process import boot_id, which
from vmtui.host.tasks import uncancelled
from vmtui.runtime import oci_runtime, seccomp
from vmtui.runtime.cgroups import hierarchies, mode
from vmtui.runtime.idmap import IdRanges
from vmtui.runtime.manifest import ImageConfig
from vmtui.runtime.overlay import make_writable

TIMEOUT_S = 20.0
FOLDERS = ("usr", "proc", "dev", "sys", "etc", "tmp")
LINKS = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")  # of a host with a merged /usr
COMMAND = ("/usr/bin/cat", "/proc/self/status")
EXPECTED = {"NoNewPrivs": "1", "Seccomp": "2"}


async def probe(context: Context) -> Probe:
    """Never raises. What worked is remembered until a reboot or another version of a program."""
    try:
        runtime = oci_runtime.choose(oci_runtime.AUTO, mode(hierarchies()))
        remembered = context.paths.cache / "oci" / "probe.json"
        key = _key(runtime)
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            cached = msgspec.json.decode(remembered.read_bytes(), type=_Remembered)
            if cached.key == key:
                return cached.probe
        async with asyncio.timeout(TIMEOUT_S):
            result = await _try(context, runtime)
        with contextlib.suppress(OSError):
            remembered.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomic(remembered, msgspec.json.encode(_Remembered(key=key, probe=result)))
        return result
    except Fault as fault:
        message = f"{fault.message}: {fault.details}" if fault.details else fault.message
        return _unusable(message, fault.hint, "missing" if isinstance(fault, MissingCapability) else "failed")
    except TimeoutError:
        return _unusable(f"a container did not run within {TIMEOUT_S:g} s", "vmtui doctor", "timeout")
    except OSError as error:
        return _unusable(f"a container could not be tried: {error}", "df -h", "failed")


class _Remembered(msgspec.Struct, frozen=True):
    key: str
    probe: Probe


def _unusable(message: str, hint: str, code: str) -> Probe:
    problem = Problem(code=code, message=message, hint=hint)
    return Probe(backend=BACKEND, kind=Kind.CONTAINER, usable=False, summary=message, problems=(problem,))


def _key(runtime: oci_runtime.Runtime) -> str:
    """This boot and these programs. Raises MissingCapability for one that is not there."""
    parts = [boot_id(), mode(hierarchies()), runtime.path]
    for path in (runtime.path, which("conmon"), which("nsenter"), which("unshare"), seccomp.PROFILE):
        with contextlib.suppress(FileNotFoundError):  # the profile; the container that is tried names it
            status = os.stat(path)
            parts.append(f"{path} {status.st_mtime_ns} {status.st_size}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


async def _try(context: Context, runtime: oci_runtime.Runtime) -> Probe:
    oci_runtime.require_root()
    version = await oci_runtime.version(runtime)
    context.paths.cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    # In the cache, whose file system the layers of images are on: whether it can map ids is part of the question.
    root = Path(tempfile.mkdtemp(prefix=".probe-", dir=context.paths.cache))
    try:
        paths = Paths(root / "state", root / "cache", root / "run")
        paths.make()
        seen, mapped_because = await _container(Context(paths=paths, workspace=root.name), root / "layer")
    finally:
        shutil.rmtree(root, ignore_errors=True)
    for name, value in EXPECTED.items():
        if seen.get(name) != value:
            raise OperationFailed(f"a container runs with {name} {seen.get(name)}, not {value}")
    facts = (
        ("runtime", f"{runtime.name} {version}, {runtime.path}: {runtime.reason}"),
        ("cgroups", mode(hierarchies())),
        ("user namespace", f"no: {mapped_because}" if mapped_because else "yes, with idmapped layers"),
        ("seccomp", f"{seccomp.PROFILE}"),
        ("capabilities", seen.get("CapEff", "?")),
    )
    problems = []
    if mapped_because:
        message = f"the root of containers is the host's root: {mapped_because}"
        problems.append(Problem(code="no-user-namespace", message=message, hint="a kernel of 5.19 or newer"))
    if oci_runtime.is_vulnerable(runtime, version):
        message = (
            f"runc {version} is older than 1.2.8, which mends CVE-2025-31133, CVE-2025-52565 and CVE-2025-52881 "
            "(unless your distribution has mended it); user namespaces soften them"
        )
        problems.append(Problem(code="runc-old", message=message, hint="apt-get install --only-upgrade runc"))
    where = "on the host's ids" if mapped_because else "in a user namespace"
    summary = f"a container ran under {runtime.name} {version} {where}, with seccomp"
    return Probe(
        backend=BACKEND, kind=Kind.CONTAINER, usable=True, summary=summary, problems=tuple(problems), facts=facts
    )


async def _container(context: Context, layer: Path) -> tuple[dict[str, str], str]:
    """Run one to its end; what it saw of itself, and why it has no user namespace, if so. Raises Fault."""
    for folder in FOLDERS:
        (layer / folder).mkdir(mode=0o755, parents=True)
    for link in LINKS:
        if os.path.islink(f"/{link}"):
            os.symlink(os.readlink(f"/{link}"), layer / link)
    ref = Ref("probe", Kind.CONTAINER, "probe")
    spec = ContainerSpec(image="probe", command=COMMAND)
    places = Places(context, ref)
    make_writable(places.writable)
    image = PinnedImage(reference="probe", digest="", config=ImageConfig(), layers=(str(layer),))
    desired = Desired[ContainerSpec](ref=ref, backend=BACKEND, spec=spec)
    ids = IdRanges(context.paths.state / "idmaps", context.workspace)
    try:
        launch = Launch(context, places, desired, image, (), ids, exit_command=[which("true")], borrowed=("/usr",))
        await launch.run(silent)
        while (ended := places.conmon.exit()) is None:  # noqa: ASYNC110 - a file
            await asyncio.sleep(0.01)
        state = places.read_state()
        if ended.code != 0:
            raise OperationFailed(f"a container ended with code {ended.code}", details=tail_of(places.log))
        lines = (line.text.partition(":") for line in last_lines(places.log, places.old_log, None))
        return {name: value.strip() for name, _, value in lines}, state.shared_ids_because if state else ""
    finally:
        await uncancelled(clear(places))
