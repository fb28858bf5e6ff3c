"""What makes a container impossible on this host, found without making anything."""

from __future__ import annotations

from collections.abc import Callable

from vmtui.backends.oci.options import OciOptions
from vmtui.backends.oci.volumes import Volumes, require_sources
from vmtui.core.backend import Context, Desired, problem_of
from vmtui.core.errors import Fault, InvalidInput
from vmtui.core.resource import Problem
from vmtui.core.specs import ContainerSpec
from vmtui.host.files import in_words, remedy
from vmtui.host.process import which
from vmtui.runtime import bundle, capabilities, seccomp, signals
from vmtui.runtime.cgroups import hierarchies, mode
from vmtui.runtime.images import ImageStore
from vmtui.runtime.oci_runtime import choose, require_root
from vmtui.runtime.reference import parse, require_local

FETCHERS = {"deb": ("apt-get", "dpkg-deb")}
LEAST_MEMORY = 6 << 20  # what runc itself needs to get a container going; Docker refuses less too


def check(context: Context, desired: Desired[ContainerSpec]) -> list[Problem]:
    """Never raises."""
    spec = desired.spec
    options = desired.options if isinstance(desired.options, OciOptions) else OciOptions()

    def memory() -> None:
        if spec.memory is not None and spec.memory < LEAST_MEMORY:
            raise InvalidInput(f"memory {spec.memory} is too little to start a container", hint='memory = "16MiB"')

    def volumes() -> None:
        for mount in spec.volumes:
            if mount.is_volume:
                Volumes(context).path(desired.ref.profile, mount.source)

    def programs() -> None:
        require_root()
        choose(options.runtime, mode(hierarchies()))
        which("conmon")

    def image() -> None:
        reference = parse(spec.image)
        if ImageStore(context.paths.cache).recall(reference) is None:
            require_local(reference)
            for tool in FETCHERS.get(reference.transport, ("skopeo",)):
                which(tool)

    questions: list[tuple[str, Callable[[], object]]] = [
        ("runtime", programs),
        ("image", image),
        ("working-dir", lambda: bundle.check_working_dir(spec.working_dir)),
        ("missing-source", lambda: require_sources(spec.volumes)),
        ("volume-name", volumes),
        ("memory", memory),
        ("signal", lambda: signals.number(spec.stop_signal or "SIGTERM")),
        ("environment", lambda: bundle.checked_environment(spec.environment, str(desired.ref))),
        ("tmpfs", lambda: bundle.check_tmpfs(spec.tmpfs)),
        ("capability", lambda: seccomp.resolve(capabilities.resolve(spec.cap_add, spec.cap_drop))),
    ]
    problems = []
    for code, ask in questions:
        try:
            ask()
        except Fault as fault:
            problems.append(problem_of(fault, f"{desired.ref}: {fault.message}", code=code))
        except OSError as error:
            message = f"{desired.ref}: {error.filename or code}: {in_words(error)}"
            problems.append(Problem(code=code, message=message, hint=remedy(error)))
    return problems
