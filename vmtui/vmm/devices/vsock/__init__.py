"""virtio-vsock: stream sockets between the guest and unix sockets of the host."""
