"""Device models under a guest that does anything: registers, rings, doorbells, in any order, at any time."""
