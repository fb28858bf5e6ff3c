"""`python -m vmtui.vmm CONFIG.json`: run one VM until it ends. `--prove`: try whether KVM runs guests here."""

from __future__ import annotations

import sys


def main() -> int:
    """The exit code: 2 for a wrong call."""
    match sys.argv[1:]:
        case ["--prove"]:
            from vmtui.vmm.prove import main as prove

            return prove()
        case [path] if not path.startswith("-"):
            from vmtui.vmm import config, monitor

            try:
                told = config.read(path)
            except (config.ConfigError, OSError) as error:
                print(f"vmtui.vmm: {error}", file=sys.stderr)
                return 2
            monitor.main(told)
    print("usage: python -m vmtui.vmm CONFIG.json | --prove", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
