"""The sampling loop, what a pass records, and images as the beginning of a run."""
