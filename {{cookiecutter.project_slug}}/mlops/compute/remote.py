"""Other names of functions of `transfer`."""

from .transfer import S3, public_remote, remote_options

__all__ = ["S3", "options", "public"]
options, public = remote_options, public_remote
