"""Parameters of Linux that spare exits at boot, put before the user's own.

Measured with Debian's kernels 6.1 and 6.12, two vCPUs, the host bridge alone on the bus:
- `pci=noearly`: no scan of all 32 slots by ports 0xCF8 and 0xCFC before ACPI (early_quirks, type 1 alone): 80 exits.
  Nothing is lost: those quirks are of chipsets that are not here.
- `8250.nr_uarts=1`: COM2 to COM4 are not looked for: 18 exits.

What needs no parameter, since the tables and CPUID say it: no i8042, RTC, VGA, HPET, PM timer (acpi.tables); clocks
and timers that need no calibration (arch.x86_64.cpuid); `no_timer_check`, which Linux sets for itself on KVM; the seed
of its random numbers (boot.bzimage).

And what no parameter does: Linux reads the first 256 bytes of configuration space by ports wherever those answer
(raw_pci_read in arch/x86/pci/common.c). Where they do not, it takes ECAM, as on QEMU's microvm: 34 exits for the bridge
in place of 229, at the price of one line, "PCI: Fatal: No config space access function found", said before it reads
ACPI's tables.
"""

from __future__ import annotations

SPARING = ("pci=noearly", "8250.nr_uarts=1")


def completed(command_line: str, parameters: tuple[str, ...] = SPARING) -> str:
    """With ours first: where one can be given once, Linux takes the last, which is the user's.

    What comes after `--` is for init: ours cannot be there.
    """
    return " ".join((*parameters, *([command_line] if command_line else [])))
