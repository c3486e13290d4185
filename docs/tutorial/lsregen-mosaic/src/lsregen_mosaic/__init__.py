"""Two plugins of lsregen, from its tutorial: an extractor and a model."""
