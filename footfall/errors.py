"""What can go wrong, in the words of whoever has to act on it. `api.errors` alone knows the statuses."""


class FootfallError(Exception):
    """Something that a person can act on; the text says what was wrong."""

    code = "error"


class Invalid(FootfallError):
    """The request or event breaks the contract; sending it again changes nothing."""

    code = "invalid"

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field


class TooLarge(FootfallError):
    """The body is over the limit."""

    code = "too_large"


class UnsupportedMediaType(FootfallError):
    """The body is of a type that no endpoint reads."""

    code = "unsupported_media_type"


class NotAuthenticated(FootfallError):
    """The credentials are missing where they are needed, or do not verify."""

    code = "not_authenticated"


class NotAllowed(FootfallError):
    """The caller is known and may not do this."""

    code = "not_allowed"


class NotFound(FootfallError):
    """There is no such thing."""

    code = "not_found"


class Limited(FootfallError):
    """Too many of something; the same request may be taken later."""

    code = "limited"

    def __init__(self, text: str, retry_after_seconds: int) -> None:
        super().__init__(text)
        self.retry_after_seconds = retry_after_seconds


class Unavailable(FootfallError):
    """No store can take or give the data now; the same request may be sent again later."""

    code = "unavailable"

    def __init__(self, text: str, retry_after_seconds: int = 5) -> None:
        super().__init__(text)
        self.retry_after_seconds = retry_after_seconds


class SettingsError(FootfallError):
    """A setting is missing, malformed or contradicts what the database was started with."""

    code = "settings"


class SchemaError(Unavailable):
    """The database is not what this code writes to; the text names the command that mends it."""

    code = "schema"
