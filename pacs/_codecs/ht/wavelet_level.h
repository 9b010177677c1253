/* One decomposition of the reversible 5/3 wavelet, for one type of sample: included once for each. T.800 F.3, F.4

   HT_SAMPLE is the type, HT_UNSIGNED the unsigned one of its width, HT_NAME(x) a name of its own, HT_BANDS where
   sub-bands lie. An image starts at the origin, so low-pass samples are the even ones. Additions wrap: what a damaged
   codestream holds overflows.

   It goes by stripes of rows, so that code-blocks are coded while their samples are in a cache and no sub-band has to
   be held whole; `spare` has room for 4 rows and 2 samples.
*/

#define HT_ADD(a, b) ((HT_SAMPLE)((HT_UNSIGNED)(a) + (HT_UNSIGNED)(b)))
#define HT_SUB(a, b) ((HT_SAMPLE)((HT_UNSIGNED)(a) - (HT_UNSIGNED)(b)))

/* T.800 F.4.8.1, across: a row into its low-pass and high-pass halves. */
HT_INLINE void HT_NAME(split_row)(const HT_SAMPLE *restrict row, size_t width, HT_SAMPLE *restrict low,
                                  HT_SAMPLE *restrict high, HT_SAMPLE *restrict spare)
{
    size_t lows = (width + 1) / 2, highs = width / 2, i;
    HT_SAMPLE *restrict even = spare, *restrict odd = spare + lows + 1;
    if (width == 1) {
        low[0] = row[0];
        return;
    }
    for (i = 0; i < highs; i++) {
        even[i] = row[2 * i];
        odd[i] = row[2 * i + 1];
    }
    if (lows > highs)
        even[highs] = row[2 * highs];
    even[lows] = even[lows - 1];
    for (i = 0; i < highs; i++)
        high[i] = HT_SUB(odd[i], HT_ADD(even[i], even[i + 1]) >> 1);
    low[0] = HT_ADD(even[0], HT_ADD(HT_ADD(high[0], high[0]), 2) >> 2);
    for (i = 1; i < highs; i++)
        low[i] = HT_ADD(even[i], HT_ADD(HT_ADD(high[i - 1], high[i]), 2) >> 2);
    if (lows > highs)
        low[highs] = HT_ADD(even[highs], HT_ADD(HT_ADD(high[highs - 1], high[highs - 1]), 2) >> 2);
}

/* T.800 F.3.8.1, across: the inverse of split_row. */
HT_INLINE void HT_NAME(join_row)(const HT_SAMPLE *restrict low, const HT_SAMPLE *restrict high, size_t width,
                                 HT_SAMPLE *restrict row, HT_SAMPLE *restrict spare)
{
    size_t lows = (width + 1) / 2, highs = width / 2, i;
    HT_SAMPLE *restrict even = spare;
    if (width == 1) {
        row[0] = low[0];
        return;
    }
    even[0] = HT_SUB(low[0], HT_ADD(HT_ADD(high[0], high[0]), 2) >> 2);
    for (i = 1; i < highs; i++)
        even[i] = HT_SUB(low[i], HT_ADD(HT_ADD(high[i - 1], high[i]), 2) >> 2);
    if (lows > highs)
        even[highs] = HT_SUB(low[highs], HT_ADD(HT_ADD(high[highs - 1], high[highs - 1]), 2) >> 2);
    even[lows] = even[lows - 1];
    for (i = 0; i < highs; i++) {
        row[2 * i] = even[i];
        row[2 * i + 1] = HT_ADD(high[i], HT_ADD(even[i], even[i + 1]) >> 1);
    }
    if (lows > highs)
        row[2 * highs] = even[highs];
}

/* The predict and update steps down, for whole rows: out = x - ((a + b) >> 1), out = x + ((a + b + 2) >> 2), and back. */
HT_INLINE void HT_NAME(predict)(const HT_SAMPLE *x, const HT_SAMPLE *a, const HT_SAMPLE *b, HT_SAMPLE *restrict out,
                                size_t width)
{
    size_t i;
    for (i = 0; i < width; i++)
        out[i] = HT_SUB(x[i], HT_ADD(a[i], b[i]) >> 1);
}

HT_INLINE void HT_NAME(update)(const HT_SAMPLE *x, const HT_SAMPLE *a, const HT_SAMPLE *b, HT_SAMPLE *restrict out,
                               size_t width)
{
    size_t i;
    for (i = 0; i < width; i++)
        out[i] = HT_ADD(x[i], HT_ADD(HT_ADD(a[i], b[i]), 2) >> 2);
}

HT_INLINE void HT_NAME(unupdate)(const HT_SAMPLE *x, const HT_SAMPLE *a, const HT_SAMPLE *b, HT_SAMPLE *restrict out,
                                 size_t width)
{
    size_t i;
    for (i = 0; i < width; i++)
        out[i] = HT_SUB(x[i], HT_ADD(HT_ADD(a[i], b[i]), 2) >> 2);
}

HT_INLINE void HT_NAME(unpredict)(const HT_SAMPLE *x, const HT_SAMPLE *a, const HT_SAMPLE *b, HT_SAMPLE *restrict out,
                                  size_t width)
{
    size_t i;
    for (i = 0; i < width; i++)
        out[i] = HT_ADD(x[i], HT_ADD(a[i], b[i]) >> 1);
}

/* Rows `first` to `last` of the low-pass bands of an image, and those of the high-pass bands that there are as many of:
   first down, then across. `image` is at row 2 * first, each band at row `first`; `spare` is kept from call to call,
   which go from the top to the bottom. T.800 F.4.2 */
HT_INLINE void HT_NAME(analyse)(const HT_SAMPLE *image, size_t image_stride, size_t width, size_t height, size_t first,
                                size_t last, HT_BANDS to, HT_SAMPLE *spare)
{
    size_t highs = height / 2, k;
    HT_SAMPLE *row = spare + 2 * width, *halves = spare + 3 * width;
    if (height == 1) {
        HT_NAME(split_row)(image, width, to.ll, to.hl, halves);
        return;
    }
    for (k = first; k < last; k++) {
        const HT_SAMPLE *even = image + 2 * (k - first) * image_stride;
        HT_SAMPLE *after = spare + (k & 1) * width, *before = spare + (~k & 1) * width;
        size_t at = (k - first) * to.stride;
        if (k < highs) {
            const HT_SAMPLE *next = 2 * k + 2 < height ? even + 2 * image_stride : even;
            HT_NAME(predict)(even + image_stride, even, next, after, width);
            HT_NAME(split_row)(after, width, to.lh + at, to.hh + at, halves);
        }
        HT_NAME(update)(even, k ? before : after, k < highs ? after : before, row, width);
        HT_NAME(split_row)(row, width, to.ll + (k - first) * to.ll_stride, to.hl + at, halves);
    }
}

/* The inverse of analyse: first across, then down. `image` is at row 2 * first; the row before that is written too, and
   the one before it read. T.800 F.3.2 */
HT_INLINE void HT_NAME(synthesise)(HT_SAMPLE *image, size_t image_stride, size_t width, size_t height, size_t first,
                                   size_t last, HT_BANDS from, HT_SAMPLE *spare)
{
    size_t lows = (height + 1) / 2, highs = height / 2, k;
    HT_SAMPLE *row = spare + 2 * width, *halves = spare + 3 * width;
    if (height == 1) {
        HT_NAME(join_row)(from.ll, from.hl, width, image, halves);
        return;
    }
    for (k = first; k < last; k++) {
        HT_SAMPLE *even = image + 2 * (k - first) * image_stride;
        HT_SAMPLE *after = spare + (k & 1) * width, *before = spare + (~k & 1) * width;
        size_t at = (k - first) * from.stride;
        if (k < highs)
            HT_NAME(join_row)(from.lh + at, from.hh + at, width, after, halves);
        HT_NAME(join_row)(from.ll + (k - first) * from.ll_stride, from.hl + at, width, row, halves);
        HT_NAME(unupdate)(row, k ? before : after, k < highs ? after : before, even, width);
        if (k)
            HT_NAME(unpredict)(before, even - 2 * image_stride, even, even - image_stride, width);
        if (k + 1 == highs && lows == highs)
            HT_NAME(unpredict)(after, even, even, even + image_stride, width);
    }
}

#undef HT_ADD
#undef HT_SUB
