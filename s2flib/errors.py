"""Errors that a user can act on: each message says what is wrong and what to do next."""


class S2FError(Exception):
    """Base class of the errors that s2flib raises deliberately.

    The message is one sentence and includes the fix. The command line prints it and exits with code 2; a traceback
    appears only with ``--debug``.
    """


def printable(why: object, longest: int = 200) -> str:
    """What another library reports, or a name in a damaged file, as a message can show it: one line, not too long."""
    text = " ".join("".join(c if c.isprintable() else " " for c in str(why)).split()) or type(why).__name__
    return text if len(text) <= longest else f"{text[:longest]}…"


class ImageError(S2FError):
    """An image file or array cannot be used."""


class DataError(S2FError):
    """A data set's folder, manifest or archive is incomplete or inconsistent."""


class WeightsError(S2FError):
    """Weights are missing, damaged, unsafe to load, or made for another preset."""
