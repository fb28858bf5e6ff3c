"""virtio 1.2 (OASIS, "VIRTIO"): split virtqueues, the interface of a device, and the PCI transport."""
