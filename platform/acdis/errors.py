"""The one class of error that a user can cause."""


class UserError(Exception):
    """Wrong input: one clear line that says what, where (file or key) and what to do.

    The command line prints it without a traceback and exits with 2. Anything else that is raised is
    a bug and keeps its traceback.
    """
