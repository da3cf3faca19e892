"""What can go wrong when the service is started."""


class ArchiveError(Exception):
    """A model folder cannot be served; the message says which and why."""


class StackError(Exception):
    """The service could not be started or died; the message is for the operator."""
