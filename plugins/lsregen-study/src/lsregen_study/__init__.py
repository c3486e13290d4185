"""A blind user study of two methods for lsregen: pairs of images on one page, and their answers counted."""
