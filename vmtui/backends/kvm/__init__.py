"""Virtual machines on the bundled VMM, `python -m vmtui.vmm`: one monitor and one machine process each."""
