"""Content types are data: what differs between a page, a book and a course is one entry here."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class ContentType:
    """A kind of thing that is viewed."""

    name: str
    external_id_is_path: bool = False


PAGE = ContentType("page", external_id_is_path=True)

CONTENT_TYPES: Mapping[str, ContentType] = MappingProxyType(
    {
        content_type.name: content_type
        for content_type in (
            PAGE,
            ContentType("post"),
            ContentType("blog_post"),
            ContentType("book"),
            ContentType("resource"),
            ContentType("course"),
        )
    }
)
