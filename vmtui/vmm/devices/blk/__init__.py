"""virtio-blk (VIRTIO 5.2) in this process, for raw files and block devices. Other formats: devices/vhost_user."""
