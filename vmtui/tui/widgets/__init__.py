"""Widgets that are drawn by line: what they cost depends on what is visible, not on what there is."""
