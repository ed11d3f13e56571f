"""A picture of a count, for pages without JavaScript. It shows; it never counts."""

from html import escape

from flask import Blueprint, Response, request
from flask.typing import ResponseReturnValue

from api import doors, pages
from footfall import fields

CHARACTER = 6.6  # pixels of an average one at 11 pixels; `textLength` makes it so in every font
PADDING = 7
MOST_LABEL = 40  # characters
SECONDS = 60  # that a picture may be old
HEADERS = {
    "Access-Control-Allow-Origin": "*",
    "Cache-Control": f"public, max-age={SECONDS}",
    "Cross-Origin-Resource-Policy": "cross-origin",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'",
}
SVG = """\
<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="20" role="img" aria-label="{text}">\
<title>{text}</title>\
<rect width="{width:.0f}" height="20" rx="4" fill="#0f766e"/>\
<path d="M4 0h{left:.0f}v20H4a4 4 0 0 1-4-4V4a4 4 0 0 1 4-4" fill="#3a4744"/>\
<g fill="#fff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11">\
<text x="{padding}" y="14" textLength="{label_length:.0f}">{label}</text>\
<text x="{number_at:.0f}" y="14" textLength="{number_length:.0f}">{number}</text>\
</g></svg>
"""

blueprint = Blueprint("badge", __name__)


@blueprint.get(f"{doors.COUNTED_TYPES_DOOR}/badge.svg")
def badge() -> ResponseReturnValue:
    """The count of a resource or a course, with a label before it."""
    content_type, content_id = (fields.text(request.args, name) for name in ("contentType", "contentId"))
    label = fields.line(request.args.get("label") or "views", "label", MOST_LABEL)
    number = pages.number(doors.count_of(content_type, content_id))
    return Response(_drawn(label, number), mimetype="image/svg+xml", headers=HEADERS)


def _drawn(label: str, number: str) -> str:
    label_length, number_length = (len(text) * CHARACTER for text in (label, number))
    left = label_length + 2 * PADDING
    return SVG.format(
        width=left + number_length + 2 * PADDING,
        left=left - 4,  # the path begins behind its round corner
        padding=PADDING,
        label_length=label_length,
        number_at=left + PADDING,
        number_length=number_length,
        label=escape(label),
        number=number,
        text=escape(f"{label}: {number}"),
    )
