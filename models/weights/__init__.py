"""Weights on disk: recognising, reading, converting and inspecting them."""
