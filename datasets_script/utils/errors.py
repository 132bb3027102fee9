"""A mistake of the user's."""


class UserError(Exception):
    """Its message is all they see."""
