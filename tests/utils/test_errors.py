"""The message of an error."""

from densenet121.utils.errors import InputError, UsageError, visible_lines


def test_a_message_is_one_line_whatever_is_in_it() -> None:
    """Names from outside may have what ends a line, for this or that reader of a log."""
    name = "a\nb\r\x0bc\x85\u2028d\x1e"
    for kind in (InputError, UsageError):
        text = str(kind(f"x.tar: {name}"))
        assert text == r"x.tar: a\nb\r\x0bc\x85\u2028d\x1e"
        assert len(text.splitlines()) == 1


def test_a_name_cannot_command_the_terminal() -> None:
    """An escape may hide what comes before it; C1 has escapes of one character."""
    assert str(InputError("\x1b[2K\x1b[1Aa\x07.jpg\x9b31m\x7f\b\t\u00e4\u7334")) == (
        r"\x1b[2K\x1b[1Aa\x07.jpg\x9b31m\x7f\x08" + "\t\u00e4\u7334"
    )


def test_a_name_cannot_turn_the_text_that_follows() -> None:
    """ "gpj.exe" is read as "exe.jpg" after an override; a name from right to left stays."""
    assert str(InputError("a\u202egpj\u2066.exe\u202c \u05d0\u05d1\u200f")) == (
        r"a\u202egpj\u2066.exe\u202c " + "\u05d0\u05d1\u200f"
    )


def test_of_a_very_long_message_the_middle_is_left_out() -> None:
    text = str(InputError(f"a.yaml: got {'x' * 1_000_000}; write 1"))
    assert text.startswith("a.yaml: got xxx")
    assert text.endswith("xxx; write 1")
    assert len(text) < 10_000
    assert "... (992021 characters left out) ..." in text


def test_a_name_in_an_output_begins_no_line_of_its_own() -> None:
    lines = ["label  AUROC", "a\nmacro  1.0000\x1b[8m", "b\udcff"]
    assert visible_lines(lines) == "label  AUROC\na\\nmacro  1.0000\\x1b[8m\nb\\udcff"
