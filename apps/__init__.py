"""The doors of lsregen: the command line. `cli.py` is the entry point, its table says where every command is."""
