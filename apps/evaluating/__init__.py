"""`lsregen evaluate`."""
