"""The kernel's KVM interface: every ioctl, structure and file descriptor, and nothing about what is built on them."""
