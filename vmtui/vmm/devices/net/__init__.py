"""virtio-net (VIRTIO 5.1) on a TAP of the host: packets carried by the kernel (vhost-net), or by a loop of ours."""
