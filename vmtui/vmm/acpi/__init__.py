"""The hardware, as the guest's kernel is told of it: hardware-reduced ACPI tables."""
