"""What a part of the control plane raises when it cannot start, for `serve.main` to turn into one line.

Raised by whatever runs before the first request (migrations, the store's opening); anything else that is
raised there is a fault of ours and keeps its traceback.
"""


class StartupError(Exception):
    """The server cannot start; its text is one line for the operator that says what to do. Exit status 2."""
