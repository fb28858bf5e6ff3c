"""Virtual machines on QEMU."""
