"""Errors that commands print: what failed, and the next step."""


class ServiceError(Exception):
    """A request that failed: the service's error, or the reason that it did not answer, as text for the terminal.

    `hint` names the next step; `details` has one line per invalid field.
    """

    def __init__(self, message: str, hint: str = "", details: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.message, self.hint, self.details = message, hint, details


class NoAnswer(ServiceError):
    """A request without an answer of the service, which may or may not have carried it out."""
