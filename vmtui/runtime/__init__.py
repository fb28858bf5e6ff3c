"""The container runtime layer: images, layers, bundles, and the runc/crun driver."""
