"""What a process of ours gives up for good, as the kernel's calls for it. Standard library alone, quick to import.

Shared by the programs that run what is hostile (`vmm`, `sandbox`); which walls one has, and in which order, is its own.
"""
