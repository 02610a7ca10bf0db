"""What a user's mistake raises: the command line prints it as one line, never as a traceback."""


class InputError(ValueError):
    """Something the user handed over cannot be used: a folder, an image, a checkpoint, a value.

    The text says where, what was found, what was allowed and, if one step helps, what to do.
    At the command line: exit status 1.
    """


class TooLargeError(InputError):
    """An image has more bytes or pixels than are allowed."""


class UsageError(InputError):
    """A flag is wrong. At the command line: exit status 2."""
