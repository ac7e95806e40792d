"""Another name of `State`."""

from .backend import State as State
