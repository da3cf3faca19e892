"""Errors of audits, and the exception that stops one."""


class AuditError(ValueError):
    """An audit cannot start or go on, or its result is not valid; the message says why."""


class AuditBusy(AuditError):
    """Another process has this share of the audit."""


class DiskFull(AuditError):
    """No space is left where an audit writes; what was finished stays, nothing is half there."""


class OutOfMemory(AuditError):
    """A block needs more memory than there is; what was finished stays."""


class BlockFailed(AuditError):
    """A block ended in an unexpected error, the cause; what was finished stays.

    Attributes:
        place: stage and images.
    """

    def __init__(self, place: str, cause: Exception) -> None:
        words = " ".join(str(cause).split())[:300] or "no message"
        super().__init__(f"{place}: {type(cause).__name__}: {words}")
        self.place = place


class AuditStopped(BaseException):
    """The audit is to stop where it is; finished parts stay.

    No error, so that whatever catches errors on the way lets it through.
    """
