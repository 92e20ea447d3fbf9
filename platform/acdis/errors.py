"""The one class of error that a user can cause."""

#: Longest line of a message; what is longer keeps its beginning and its end, which says what to do.
LONGEST, TAIL = 1500, 400


class UserError(Exception):
    """Wrong input: one clear line that says what, where (file or key) and what to do.

    The command line prints it without a traceback and exits with 2. Anything else that is raised is
    a bug and keeps its traceback. What files say may stand in it: control characters become escapes.
    """

    def __init__(self, message: str) -> None:
        super().__init__("\n".join(_line(line) for line in message.split("\n")))


def _line(line: str) -> str:
    if len(line) > LONGEST:
        line = f"{line[: LONGEST - TAIL]} … {line[-TAIL:]}"
    return shown(line)


def shown(text: str) -> str:
    """Text as a terminal may have it: control characters, and code points that are no text, as escapes."""
    return text if text.isprintable() else "".join(map(_character, text))


def _character(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
