"""The bundled VMM core: one process per virtual machine, on /dev/kvm.

A program, imported by nobody. It uses the standard library and `vmtui.wire` alone, and of the library only what is
quick to import: it is to reach the first KVM_RUN in tens of milliseconds.
"""
