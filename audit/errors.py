"""The one error of the audit room.  Imports nothing of ours."""


class AuditError(ValueError):
    """An audit cannot start, go on or be believed; the message says why in one sentence."""
