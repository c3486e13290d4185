"""From measurements to numbers with intervals."""
