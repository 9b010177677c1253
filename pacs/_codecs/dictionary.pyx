"""VR by tag, from the tables that the face hands over (PS3.6, and private dictionaries)."""

from libc.stdint cimport uint8_t, uint32_t

from pacs._codecs.vr cimport *


def _vr_number(str name):
    for number in range(VR_US_SS):
        if name == VR_NAMES[2 * number:2 * number + 2].decode():
            return number
    return {"US or SS": VR_US_SS, "OB or OW": VR_OB_OW, "OB_OW": VR_OB_OW, "US or OW": VR_US_OW,
            "US or SS or OW": VR_US_SS_OW}.get(name, VR_UN)


cdef class Dictionary:
    """VR by tag: the public elements in an open hash table, repeating groups by mask, private ones through Python."""

    def __init__(self, entries, repeaters, private):
        """`entries`: (tag, VR name); `repeaters`: (bits, mask, VR name); `private(creator)`: dict by key or None."""
        cdef uint32_t slot, tag
        cdef int count = 0
        for i in range(1 << HASH_BITS):
            self.vrs[i] = VR_NONE
        for tag, name in entries:
            count += 1
            if count > (1 << HASH_BITS) * 3 // 4:
                raise ValueError("more dictionary entries than the table is made for")
            slot = self.slot(tag)
            self.tags[slot] = tag
            self.vrs[slot] = _vr_number(name)
        self.repeaters = [(bits, mask, _vr_number(name)) for bits, mask, name in repeaters]
        self.private = private

    cdef uint32_t slot(self, uint32_t tag) noexcept:
        cdef uint32_t slot = <uint32_t>(tag * <uint32_t>2654435761) >> (32 - HASH_BITS)
        while self.vrs[slot] != VR_NONE and self.tags[slot] != tag:
            slot = (slot + 1) & ((1 << HASH_BITS) - 1)
        return slot

    cdef int public_vr(self, uint32_t tag) except -1:
        """VR_NONE when the dictionary does not know the tag."""
        cdef int vr = self.vrs[self.slot(tag)]
        cdef uint32_t bits, mask
        if vr == VR_NONE and not tag >> 16 & 1:
            for bits, mask, number in self.repeaters:
                if (tag ^ bits) & mask == 0:
                    return number
        return vr

    cdef int private_vr(self, uint32_t tag, dict creators) except -1:
        """LO for a private creator, else what the creator's own dictionary says, else UN. PS3.5 7.8, 6.2.2"""
        cdef uint32_t group = tag >> 16, element = tag & 0xFFFF
        if 0x10 <= element <= 0xFF:
            return VR_LO
        if creators is None or element <= 0xFF:
            return VR_UN
        block = creators.get(group << 16 | element >> 8)
        if block is None:
            return VR_UN
        # Whole tag, tag with any block, any group of the hundred with any block: as private dictionaries list them.
        for key in (tag, 1 << 32 | group << 16 | element & 0xFF, 2 << 32 | group >> 8 << 16 | element & 0xFF):
            name = block.get(key)
            if name is not None:
                return _vr_number(name)
        return VR_UN
