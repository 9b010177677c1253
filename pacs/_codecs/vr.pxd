"""Value Representations as small numbers, and what each implies for reading. PS3.5 6.2, 7.1.2"""

# In the order of VR_NAMES. The last four are the ambiguous ones of the data dictionary (PS3.6), never in a file.
cdef enum:
    VR_AE, VR_AS, VR_AT, VR_CS, VR_DA, VR_DS, VR_DT, VR_FD, VR_FL, VR_IS, VR_LO, VR_LT, VR_OB, VR_OD, VR_OF, VR_OL
    VR_OV, VR_OW, VR_PN, VR_SH, VR_SL, VR_SQ, VR_SS, VR_ST, VR_SV, VR_TM, VR_UC, VR_UI, VR_UL, VR_UN, VR_UR, VR_US
    VR_UT, VR_UV
    VR_US_SS, VR_OB_OW, VR_US_OW, VR_US_SS_OW
    VR_NONE

cdef extern from *:
    """
    static const char VR_NAMES[] = "AEASATCSDADSDTFDFLISLOLTOBODOFOLOVOWPNSHSLSQSSSTSVTMUCUIULUNURUSUTUV";
    """
    const char VR_NAMES[]


cdef inline bint has_long_length(int vr) noexcept nogil:
    """Explicit VR with two reserved bytes and a length of four. PS3.5 Table 7.1-1"""
    return vr in (
        VR_OB, VR_OD, VR_OF, VR_OL, VR_OV, VR_OW, VR_SQ, VR_SV, VR_UC, VR_UN, VR_UR, VR_UT, VR_UV
    )


cdef inline bint is_binary(int vr) noexcept nogil:
    return vr in (VR_OB, VR_OD, VR_OF, VR_OL, VR_OV, VR_OW, VR_UN)


cdef inline bint may_be_bulk(int vr) noexcept nogil:
    """What metadata may name by a BulkDataURI instead of its value. PS3.18 10.4.1.1.2"""
    return is_binary(vr) or vr in (
        VR_DS, VR_FD, VR_FL, VR_IS, VR_LT, VR_SL, VR_SS, VR_ST, VR_SV, VR_UC, VR_UL, VR_US, VR_UT, VR_UV
    )


cdef inline bint is_single_text(int vr) noexcept nogil:
    """Text in which a backslash does not separate values."""
    return vr in (VR_LT, VR_ST, VR_UT, VR_UR)


cdef inline bint has_character_set(int vr) noexcept nogil:
    """Text that Specific Character Set (0008,0005) applies to. PS3.5 6.1.2.3"""
    return vr in (VR_LO, VR_LT, VR_PN, VR_SH, VR_ST, VR_UC, VR_UT)


cdef inline int unit_bytes(int vr) noexcept nogil:
    """Bytes of one number, which is what byte ordering applies to. PS3.5 7.3"""
    if vr in (VR_US, VR_SS, VR_OW):
        return 2
    if vr in (VR_UL, VR_SL, VR_FL, VR_OL, VR_OF, VR_AT):
        return 4
    if vr in (VR_UV, VR_SV, VR_FD, VR_OV, VR_OD):
        return 8
    return 1


cdef inline bint is_us_or_ss(unsigned int tag) noexcept nogil:
    """Elements that Pixel Representation makes US or SS; the other ambiguous ones have a rule of their own."""
    return tag not in (0x00283006, 0x00281200)


cdef inline bint is_lut_descriptor(unsigned int tag) noexcept nogil:
    """Whose first value counts entries and is unsigned whatever its VR. PS3.3 C.7.6.3.1.5"""
    return tag in (0x00281101, 0x00281102, 0x00281103, 0x00283002)


cdef inline int vr_of(const unsigned char* letters) noexcept nogil:
    """VR_NONE for two letters that are no VR."""
    cdef int code = letters[0] << 8 | letters[1]
    if code == 0x4145:
        return VR_AE
    elif code == 0x4153:
        return VR_AS
    elif code == 0x4154:
        return VR_AT
    elif code == 0x4353:
        return VR_CS
    elif code == 0x4441:
        return VR_DA
    elif code == 0x4453:
        return VR_DS
    elif code == 0x4454:
        return VR_DT
    elif code == 0x4644:
        return VR_FD
    elif code == 0x464C:
        return VR_FL
    elif code == 0x4953:
        return VR_IS
    elif code == 0x4C4F:
        return VR_LO
    elif code == 0x4C54:
        return VR_LT
    elif code == 0x4F42:
        return VR_OB
    elif code == 0x4F44:
        return VR_OD
    elif code == 0x4F46:
        return VR_OF
    elif code == 0x4F4C:
        return VR_OL
    elif code == 0x4F56:
        return VR_OV
    elif code == 0x4F57:
        return VR_OW
    elif code == 0x504E:
        return VR_PN
    elif code == 0x5348:
        return VR_SH
    elif code == 0x534C:
        return VR_SL
    elif code == 0x5351:
        return VR_SQ
    elif code == 0x5353:
        return VR_SS
    elif code == 0x5354:
        return VR_ST
    elif code == 0x5356:
        return VR_SV
    elif code == 0x544D:
        return VR_TM
    elif code == 0x5543:
        return VR_UC
    elif code == 0x5549:
        return VR_UI
    elif code == 0x554C:
        return VR_UL
    elif code == 0x554E:
        return VR_UN
    elif code == 0x5552:
        return VR_UR
    elif code == 0x5553:
        return VR_US
    elif code == 0x5554:
        return VR_UT
    elif code == 0x5556:
        return VR_UV
    return VR_NONE
