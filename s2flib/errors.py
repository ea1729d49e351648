"""Errors a person can act on: one sentence that says what is wrong and what to do next."""


class S2FError(Exception):
    """Base of every error s2flib raises on purpose.

    The message is one sentence with the mend in it. The command line prints it and exits with
    code 2; a traceback appears only with ``--debug``.
    """


class ImageError(S2FError):
    """An image file or array cannot be used."""


class DataError(S2FError):
    """A data set's folder, manifest or archive is missing something or contradicts itself."""


class WeightsError(S2FError):
    """Weights are missing, damaged, unsafe to load, or belong to another preset."""
