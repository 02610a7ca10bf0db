"""The HTTP server of the ``serve`` command."""

from densenet121.serve.server import serve

__all__ = ["serve"]
