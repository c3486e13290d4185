"""Plugins: the hooks, finding what packages register, and calling it."""
