"""Networks on this host: a bridge, TAP and veth ports, nftables, dnsmasq."""
