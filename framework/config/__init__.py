"""The configuration of a run: options of plugins, YAML, presets, and one validation of everything."""
