"""Other names of functions of `transfer`."""

from .transfer import pack as pack
from .transfer import unpack as unpack
