"""The one error of a question that what is shown does not allow. Whoever draws questions draws again, and counts."""


class CannotAskError(ValueError):
    """A question that a scene does not allow.

    Args:
        message (`str`): what is wrong, of which scene.
        reason (`str`, *optional*): the same for all such scenes, to count by; by default the message.
    """

    def __init__(self, message: str, reason: str | None = None):
        super().__init__(message)
        self.reason = reason or message
