"""The message of an error."""

from densenet121.utils.errors import InputError, UsageError


def test_a_message_is_one_line_whatever_is_in_it() -> None:
    """Names from outside may have what ends a line, for this or that reader of a log."""
    name = "a\nb\r\x0bc\x85\u2028d\x1e"
    for kind in (InputError, UsageError):
        text = str(kind(f"x.tar: {name}"))
        assert text == r"x.tar: a\nb\r\x0bc\x85\u2028d\x1e"
        assert len(text.splitlines()) == 1
