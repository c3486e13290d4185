"""Layouts in files: the formats that are read and written, and the items that they hold."""
