"""The one error that is meant for people."""


class UserError(Exception):
    """A message for the person at the keyboard: one line; the command line prints it and exits with 2."""

    details = ""  # the traceback of somebody's environment, which goes into the run's folder
