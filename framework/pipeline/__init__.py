"""From a request to images: the pipeline, its checks, and its report."""
