"""Disks as qcow2 files, through qemu-img."""
