"""The one error that is meant for people."""

_LONGEST = 1200


class UserError(Exception):
    """A message for the person at the keyboard: one line; the command line prints it and exits with 2.

    What a file says may stand in it, so nothing is left that would command a terminal.
    """

    details = ""  # the traceback of somebody's environment, which goes into the run's folder

    def __init__(self, message: str) -> None:
        if len(message) > _LONGEST:  # of a name that is no name: what to do stands at the end
            message = f"{message[: _LONGEST // 2]} ... {message[-_LONGEST // 2 :]}"
        super().__init__("".join(x if x.isprintable() else ascii(x)[1:-1] for x in message))


def one_line(cause: BaseException, length: int = 160) -> str:
    """What an exception says, on one line; its class's name if it says nothing."""
    return (" ".join(str(cause).split()) or type(cause).__name__)[:length]
