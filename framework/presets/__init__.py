"""Published methods as data: one YAML file each."""
