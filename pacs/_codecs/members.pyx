"""Where a member of a JSON object stands, or would stand: top level only, nothing is parsed into Python objects."""

from libc.stdint cimport uint8_t
from libc.string cimport memcmp

cdef enum:
    KEY = 8  # characters of a tag


def place(const uint8_t[::1] text, const uint8_t[::1] key):
    """(offset, length) of the member `"<key>":value` of an object whose members are sorted by keys of 8 characters.

    Length 0: there is none, and it belongs at the offset, before the member or the closing brace there. -1 as offset:
    not such an object. RFC 8259
    """
    cdef Py_ssize_t at = 1, size = text.shape[0], start, depth
    cdef int order
    if size < 2 or text[0] != b'{' or key.shape[0] != KEY:
        return -1, 0
    if text[1] == b'}':
        return 1, 0
    while True:
        start = at
        # "GGGGEEEE":
        if at + KEY + 3 > size or text[at] != b'"' or text[at + KEY + 1] != b'"' or text[at + KEY + 2] != b':':
            return -1, 0
        order = memcmp(&text[at + 1], &key[0], KEY)
        if order > 0:
            return start, 0
        at += KEY + 3
        depth = 0
        while at < size:
            if text[at] == b'"':
                at += 1
                while at < size and text[at] != b'"':
                    at += 2 if text[at] == b'\\' else 1
            elif text[at] == b'{' or text[at] == b'[':
                depth += 1
            elif text[at] == b'}' or text[at] == b']':
                if depth == 0:
                    break
                depth -= 1
            elif text[at] == b',' and depth == 0:
                break
            at += 1
        if at >= size:
            return -1, 0
        if order == 0:
            return start, at - start
        if text[at] != b',':
            return at, 0
        at += 1
