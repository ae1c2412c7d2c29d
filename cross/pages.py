#!/usr/bin/env python3
"""Whether programs start on kernels with pages of 64 KiB (and 16 KiB, as the Raspberry Pi 5's): the kernel maps a program's
segments by whole pages, so each must begin at a multiple of the largest.

    cross/pages.py PROGRAM…      fails for one that would not
"""

import struct
import sys

PAGE = 64 * 1024
LOAD = 1


def segments(data):
    """(file offset, address, alignment) of what is mapped."""
    if data[:4] != b"\x7fELF":
        raise ValueError("not a program")
    wide = data[4] == 2
    table, size, count = (*struct.unpack_from("<Q", data, 32), *struct.unpack_from("<HH", data, 54)) if wide else \
        (*struct.unpack_from("<I", data, 28), *struct.unpack_from("<HH", data, 42))
    for at in range(table, table + size * count, size):
        if wide:
            kind, _, offset, address, _, _, _, alignment = struct.unpack_from("<IIQQQQQQ", data, at)
        else:
            kind, offset, address, _, _, _, _, alignment = struct.unpack_from("<IIIIIIII", data, at)
        if kind == LOAD:
            yield offset, address, alignment


def main():
    for path in sys.argv[1:]:
        with open(path, "rb") as file:
            found = list(segments(file.read()))
        for offset, address, alignment in found:
            if alignment % PAGE or (address - offset) % PAGE:
                sys.exit(f"{path}: the segment at {address:#x} is aligned to {alignment} bytes; pages of {PAGE} want {PAGE}")
        if not found:
            sys.exit(f"{path}: nothing to map")


if __name__ == "__main__":
    main()
