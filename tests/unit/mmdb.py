"""Writes the smallest MaxMind-format file: one IPv4 address that has a record.

After the published format, https://maxmind.github.io/MaxMind-DB/: a search tree, 16 zero bytes, the data, a
marker, the metadata.
"""

from ipaddress import IPv4Address
from pathlib import Path

RECORD_BYTES = 3
MARKER = b"\xab\xcd\xefMaxMind.com"

Value = str | bytes | dict[str, "Value"]  # bytes: encoded already


def write(file: Path, address: str, record: Value, built: int = 1, kind: str = "Test") -> None:
    """Make `file` a country file that knows `address` only; `built` is a Unix time."""
    nodes = 32
    bits = f"{int(IPv4Address(address)):032b}"
    tree = b"".join(_node(depth, bit, nodes) for depth, bit in enumerate(bits))
    metadata: Value = {
        "node_count": b"\xc4" + nodes.to_bytes(4, "big"),
        "record_size": _uint16(RECORD_BYTES * 8),
        "ip_version": _uint16(4),
        "database_type": kind,
        "languages": b"\x00\x04",  # an empty array
        "binary_format_major_version": _uint16(2),
        "binary_format_minor_version": _uint16(0),
        "build_epoch": b"\x08\x02" + built.to_bytes(8, "big"),
        "description": {"en": "made by a test"},
    }
    file.write_bytes(tree + bytes(16) + _encode(record) + MARKER + _encode(metadata))


def _node(depth: int, bit: str, nodes: int) -> bytes:
    """Towards the address goes on; the other way is a dead end. The last node points at the data."""
    onwards = depth + 1 if depth + 1 < nodes else nodes + 16
    pair = (onwards, nodes) if bit == "0" else (nodes, onwards)
    return b"".join(number.to_bytes(RECORD_BYTES, "big") for number in pair)


def _uint16(number: int) -> bytes:
    return b"\xa2" + number.to_bytes(2, "big")


def _encode(value: Value) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        assert len(value.encode()) < 29
        return bytes([0x40 | len(value.encode())]) + value.encode()
    items = b"".join(_encode(key) + _encode(item) for key, item in value.items())
    return bytes([0xE0 | len(value)]) + items
