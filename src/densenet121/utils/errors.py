"""What a user's mistake raises: the command line prints it as one line, never as a traceback.

A message names a setting by its field in backquotes, such as "pass `per_batch_size` 2 or more": a
caller in Python knows the field, and the command line prints ``--per_batch_size`` in its place.
Only ``config`` and ``commands`` know flags.
"""


class InputError(ValueError):
    """Something the user handed over cannot be used: a folder, an image, a checkpoint, a value.

    The text says where, what was found, what was allowed and, if one step helps, what to do.
    At the command line: exit status 1.
    """


class TooLargeError(InputError):
    """An image has more bytes or pixels than are allowed."""


class UsageError(InputError):
    """A setting is wrong. At the command line: exit status 2."""
