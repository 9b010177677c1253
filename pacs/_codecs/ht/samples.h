/* Samples of a frame into planes of wavelet samples and back: level shift (T.800 G.1) and reversible component transform
   (G.2), for one type of wavelet sample: included once for each. HT_SAMPLE and HT_NAME as in wavelet_level.h.

   `kind` is the type of the frame's samples: HT_U8, HT_I8, HT_U16, HT_I16 or HT_I32 (written only). They lie by pixel. */

#define HT_LOAD(type)                                                                          \
    do {                                                                                       \
        const type *restrict from = (const type *)frame + component;                           \
        for (i = 0; i < columns; i++)                                                          \
            plane[i] = (HT_SAMPLE)(from[i * step] - shift);                                    \
    } while (0)

/* One row of one component. */
HT_INLINE void HT_NAME(load_row)(const void *frame, int kind, size_t columns, size_t component, size_t step,
                                 int32_t shift, HT_SAMPLE *restrict plane)
{
    size_t i;
    switch (kind) {
    case HT_U8: if (step == 1) { const size_t step = 1; HT_LOAD(uint8_t); } else HT_LOAD(uint8_t); break;
    case HT_I8: if (step == 1) { const size_t step = 1; HT_LOAD(int8_t); } else HT_LOAD(int8_t); break;
    case HT_U16: if (step == 1) { const size_t step = 1; HT_LOAD(ht_frame_u16); } else HT_LOAD(ht_frame_u16); break;
    default: if (step == 1) { const size_t step = 1; HT_LOAD(ht_frame_i16); } else HT_LOAD(ht_frame_i16); break;
    }
}

#define HT_STORE(type)                                                                         \
    do {                                                                                       \
        type *restrict to = (type *)frame + component;                                         \
        for (i = 0; i < columns; i++)                                                          \
            to[i * step] = (type)((uint32_t)(int32_t)plane[i] + (uint32_t)shift);              \
    } while (0)

HT_INLINE void HT_NAME(store_row)(void *frame, int kind, size_t columns, size_t component, size_t step, int32_t shift,
                                  const HT_SAMPLE *restrict plane)
{
    size_t i;
    switch (kind) {
    case HT_U8:
    case HT_I8: if (step == 1) { const size_t step = 1; HT_STORE(uint8_t); } else HT_STORE(uint8_t); break;
    case HT_I32: if (step == 1) { const size_t step = 1; HT_STORE(ht_frame_u32); } else HT_STORE(ht_frame_u32); break;
    default: if (step == 1) { const size_t step = 1; HT_STORE(ht_frame_u16); } else HT_STORE(ht_frame_u16); break;
    }
}

/* T.800 G.2.1: red, green, blue become Y, blue less green, red less green. */
HT_INLINE void HT_NAME(rct_row)(HT_SAMPLE *restrict r, HT_SAMPLE *restrict g, HT_SAMPLE *restrict b, size_t columns)
{
    size_t i;
    for (i = 0; i < columns; i++) {
        int32_t red = r[i], green = g[i], blue = b[i];
        r[i] = (HT_SAMPLE)((red + 2 * green + blue) >> 2);
        g[i] = (HT_SAMPLE)(blue - green);
        b[i] = (HT_SAMPLE)(red - green);
    }
}

/* T.800 G.2.2 */
HT_INLINE void HT_NAME(inverse_rct_row)(HT_SAMPLE *restrict y, HT_SAMPLE *restrict u, HT_SAMPLE *restrict v,
                                        size_t columns)
{
    size_t i;
    for (i = 0; i < columns; i++) {
        uint32_t cb = (uint32_t)(int32_t)u[i], cr = (uint32_t)(int32_t)v[i];
        uint32_t green = (uint32_t)(int32_t)y[i] - (uint32_t)((int32_t)(cb + cr) >> 2);
        y[i] = (HT_SAMPLE)(cr + green);
        u[i] = (HT_SAMPLE)green;
        v[i] = (HT_SAMPLE)(cb + green);
    }
}

#undef HT_LOAD
#undef HT_STORE
