"""Errors of the audit room, and what stops an audit.  Imports nothing of ours."""


class AuditError(ValueError):
    """An audit cannot start, go on or be believed; the message says why in one sentence."""


class AuditBusy(AuditError):
    """Another process has this share of the audit."""


class AuditStopped(BaseException):
    """Somebody wants an audit to stop where it is; finished parts stay.

    No error, so that whatever catches errors on the way lets it through.
    """
