"""A context whose workloads are started again whenever they end, without an engine."""

from __future__ import annotations

import sys

from vmtui.core.backend import Context
from vmtui.core.resource import Ref

SCRIPT = """
import asyncio, pathlib, sys
from tests.support.again import Again
from vmtui.backends.oci.backend import OciBackend
from vmtui.core.backend import Attachments, silent
from vmtui.core.resource import Ref
from vmtui.host.paths import Paths
context = Again(paths=Paths(*map(pathlib.Path, sys.argv[1:4])), workspace=sys.argv[4])
asyncio.run(OciBackend(context).start(Ref.parse(sys.argv[5]), Attachments(), silent))
"""


class Again(Context, frozen=True, kw_only=True):
    def reap_argv(self, ref: Ref) -> list[str]:
        return self.start_argv(ref)

    def start_argv(self, ref: Ref) -> list[str]:
        """A front end of its own that starts it."""
        roots = [str(root) for root in (self.paths.state, self.paths.cache, self.paths.runtime)]
        return [sys.executable, "-c", SCRIPT, *roots, self.workspace, str(ref)]
