"""PCI bus 0: configuration space by ports and by ECAM, BARs, MSI-X."""
