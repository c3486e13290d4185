"""Plans of jobs, and their runs on one machine or many."""
