"""The models that ship with the package, each a folder in the diffusers layout."""
