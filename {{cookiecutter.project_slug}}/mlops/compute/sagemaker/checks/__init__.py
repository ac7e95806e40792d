"""The checks of `jobs doctor`. Each is a generator of results; an error that it raises is a result too."""
