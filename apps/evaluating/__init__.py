"""`lsregen evaluate` and `lsregen study`."""
