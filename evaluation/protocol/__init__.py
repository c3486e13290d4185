"""The protocol of a comparison at scale: prompts and layouts, a plan of jobs, its run on many machines, its scores."""
