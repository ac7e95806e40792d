"""A model whose data, code and parameters can be named: `python -m <this package> --help` lists what it does."""
