"""`lsregen show`: a run as one page."""
