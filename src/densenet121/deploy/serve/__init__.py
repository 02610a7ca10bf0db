"""The ``serve`` command."""

from densenet121.deploy.serve.server import serve

__all__ = ["serve"]
