"""The doors of lsregen: the command line. `cli.py` is the entry point, every other command has a file of its own."""
