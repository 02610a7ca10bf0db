"""The package's version, in a module of its own so that reading it needs no other import."""

__version__ = "0.1.0"
