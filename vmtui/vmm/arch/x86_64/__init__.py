"""x86-64: where things are in the guest's address space, what its processors are told, how they start."""
