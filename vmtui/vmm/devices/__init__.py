"""The devices. Each sees offsets into its own window, and guest memory through `memory` and `virtio.queue` alone."""
