"""`lsregen generate`."""
