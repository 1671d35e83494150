"""One XML file of Pascal VOC: its text, which may be hostile, and the values in it."""

import math
import re
from pathlib import Path
from xml.etree import ElementTree
from xml.parsers import expat

from frs.dataset import image_files
from frs.dataset.fields import is_text
from frs.dataset.issues import printable
from frs.dataset.upload.annotated_images import Box

_MAX_BYTES = 4 << 20
_MAX_DEPTH = 20
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_ENCODING = re.compile(rb"""^\s*<\?xml[^>]*encoding=["']([A-Za-z0-9_.-]+)["']""")
_ENCODINGS = (
    *("gbk", "gb2312", "gb18030", "big5", "cp936"),
    *("shift_jis", "euc-jp", "euc-kr", "cp949"),
    *("cp1250", "cp1251", "cp1252"),
)
"""Encodings that are read although expat does not know them."""


class InvalidAnnotation(Exception):
    """An XML file that cannot be used; the message continues after the file's name."""


def is_annotation(path: Path) -> bool:
    """Return whether the beginning of the file looks like an annotation of Pascal VOC."""
    with path.open("rb") as file:
        head = file.read(4096).replace(b"\0", b"")  # of UTF-16, the ASCII characters are left
        return re.search(rb"<annotation[\s>]", head) is not None


def parse(xml: Path) -> ElementTree.Element:
    """Parse XML without declarations: entities can expand a few lines to gigabytes, or read other files.

    Raises InvalidAnnotation.
    """
    if xml.stat().st_size > _MAX_BYTES:
        raise InvalidAnnotation(f" has more than {_MAX_BYTES >> 20} MiB")
    content, encoding = _decode(xml.read_bytes())
    builder = _LimitedBuilder()
    parser = expat.ParserCreate(encoding)
    parser.StartElementHandler, parser.EndElementHandler = builder.start_element, builder.end_element
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = _refuse_declarations
    try:
        parser.Parse(content, True)
    except (expat.ExpatError, ValueError, LookupError) as error:  # LookupError: an encoding that does not exist
        raise InvalidAnnotation(f", line {parser.CurrentLineNumber}: is not well-formed XML") from error
    return builder.close()


def _decode(content: bytes) -> tuple[bytes, str | None]:
    """Return the file as UTF-8 and that encoding if it declares one that expat does not know; otherwise unchanged."""
    declaration = _ENCODING.match(content[:200])
    name = declaration[1].decode().lower().replace("_", "-") if declaration else ""
    encoding = next((known for known in _ENCODINGS if known.replace("_", "-") == name), None)
    try:
        return (content.decode(encoding).encode(), "utf-8") if encoding else (content, None)
    except UnicodeDecodeError as error:
        raise InvalidAnnotation(f" declares the encoding {encoding}, but has bytes of another") from error


class _LimitedBuilder(ElementTree.TreeBuilder):
    """Tree builder that limits the depth of nesting."""

    depth = 0

    def start_element(self, tag: str, attributes: dict[str, str]) -> None:
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise InvalidAnnotation(" is nested too deeply")
        self.start(tag, attributes)

    def end_element(self, tag: str) -> None:
        self.depth -= 1
        self.end(tag)


def _refuse_declarations(*_: object) -> None:
    raise InvalidAnnotation(" declares a document type or entities, which are not allowed")


def get_size(root: ElementTree.Element, image: Path) -> tuple[int, int]:
    """Return the image file's own [width, height]; for an unreadable image the annotated size, which the check reports.

    Raises InvalidAnnotation if they differ.
    """
    annotated = tuple(int(_get_number(root, f"size/{side}", default=0)) for side in ("width", "height"))
    actual = image_files.read_image_size(image)
    if actual is None:
        return max(1, annotated[0]), max(1, annotated[1])
    if all(annotated) and annotated != actual:
        raise InvalidAnnotation(
            f" says {annotated[0]}x{annotated[1]}, but {printable(image.name)} is {actual[0]}x{actual[1]}"
        )
    return actual


def get_boxes(root: ElementTree.Element) -> list[Box]:
    """Return the boxes with corners as in the file. Raises InvalidAnnotation."""
    return [_get_box(element) for element in root.iter("object")]


def _get_box(element: ElementTree.Element) -> Box:
    label = (element.findtext("name") or "").strip()
    if not is_text(label, 200):
        raise InvalidAnnotation(" has an object without a name of 1 to 200 characters")
    box = element.find("bndbox")
    if box is None:
        raise InvalidAnnotation(f" has an object, {printable(label)}, without a bndbox")
    left, top, right, bottom = (_get_number(box, corner) for corner in _CORNERS)
    return Box(label, left, top, right, bottom, ignored=_is_difficult(element))


def _is_difficult(element: ElementTree.Element) -> bool:
    text = (element.findtext("difficult") or "").strip().lower()
    return text == "true" or (
        text not in ("false", "unspecified") and _get_number(element, "difficult", default=0) != 0
    )


def _get_number(element: ElementTree.Element, path: str, default: float | None = None) -> float:
    text = element.findtext(path)
    if default is not None and not (text or "").strip():
        return default
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not abs(value) < 1e9:
        raise InvalidAnnotation(f" has `{path}` {printable(text)}, which is not a number below 1e9 in magnitude")
    return value
