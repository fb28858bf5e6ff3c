"""All that `vmtui serve` goes by, read from its files: whole and right, or not at all."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path

from vmtui.core.errors import InvalidInput
from vmtui.core.policy import Role
from vmtui.host.paths import Paths, config_dir
from vmtui.profile.serving import Serve
from vmtui.ssh import host_key, keys, settings
from vmtui.ssh.gate import Gate
from vmtui.ssh.keys import Keys
from vmtui.ssh.settings import Listen


@dataclass(frozen=True, slots=True)
class Files:
    """Where they are: by the command line, else by serve.toml, else in their usual places."""

    config: Path
    config_named: bool  # so that it must be there
    keys: Path | None
    host_key: Path | None

    @classmethod
    def of(cls, args: argparse.Namespace) -> Files:
        return cls(
            config=Path(os.path.abspath(args.config)) if args.config else settings.default_path(),
            config_named=bool(args.config),
            keys=Path(os.path.abspath(args.keys)) if args.keys else None,
            host_key=Path(os.path.abspath(args.host_key)) if args.host_key else None,
        )


@dataclass(frozen=True, slots=True)
class Configured:
    """What the files said when they were read."""

    serve: Serve
    roles: dict[str, Role]
    keys: Keys
    keys_path: Path
    host_key_path: Path

    @property
    def gate(self) -> Gate:
        return Gate(self.keys, self.roles)

    @property
    def without_role(self) -> list[str]:
        """Of whom there is a key that lets nobody in."""
        return [
            f"{self.keys_path}:{line.number}: {line.name or 'an authority'} has no role, and is not let in"
            for line in self.keys.lines
            if not line.options.role
        ]


def read(files: Files, paths: Paths, *, needs_keys: bool = True) -> Configured:
    """Raises FileInvalid for the first thing that is wrong. Changes nothing."""
    serve, roles = settings.read(files.config, must_exist=files.config_named)
    folder = files.config.parent if files.config_named or files.config.exists() else config_dir()
    keys_path = files.keys or folder / Path(serve.keys).expanduser()
    own = folder / Path(serve.host_key).expanduser() if serve.host_key else paths.state / host_key.FILE
    found = Keys() if not needs_keys and not os.path.lexists(keys_path) else keys.load(keys_path, roles)
    return Configured(serve, roles, found, keys_path, files.host_key or own)


def listening(args: argparse.Namespace, serve: Serve) -> list[Listen]:
    """Where to listen: by the command line, else by serve.toml. Raises InvalidInput."""
    if args.listen:
        for host, port in args.listen:
            try:
                settings.address(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
            except ValueError as error:
                raise InvalidInput(str(error), hint="vmtui serve --listen 127.0.0.1:2222") from None
    wanted = args.listen or [settings.address(text) for text in serve.listen]
    return [("127.0.0.1", port) if host == "localhost" else (host, port) for host, port in wanted]
