/* Gathering of rows; the bits are those of the passes in numpy of workers/rows.py. */
#include "gather.h"

#include <stddef.h>
#include <string.h>

#include "nablad.h"

#define LINE 64     /* bytes of a cache line */
#define AHEAD 2     /* rows between the one that is fetched and the one that is read */
#define FETCHED 8192 /* bytes of a row that are fetched ahead; the hardware does the rest of a long row */

static int64_t row_number(const int64_t *numbers, int64_t first, int64_t place) {
    return numbers ? numbers[place] : first + place;
}

static void fetch(const char *row, size_t bytes) {
    for (size_t at = 0; at < bytes && at < FETCHED; at += LINE)
        __builtin_prefetch(row + at);
}

/* One row: converted, then shifted and multiplied where there is something to do it with; each is rounded once. */
#define SCALE_ROW(STORED, COMPUTED)                                                                                    \
    static inline __attribute__((always_inline)) void scale_##STORED##_##COMPUTED(                                     \
        const STORED *restrict row, const COMPUTED *restrict shift, const COMPUTED *restrict factor,                   \
        COMPUTED *restrict out, int64_t columns) {                                                                     \
        if (shift && factor)                                                                                           \
            for (int64_t i = 0; i < columns; i++)                                                                      \
                out[i] = ((COMPUTED)row[i] - shift[i]) * factor[i];                                                    \
        else if (shift)                                                                                                \
            for (int64_t i = 0; i < columns; i++)                                                                      \
                out[i] = (COMPUTED)row[i] - shift[i];                                                                  \
        else if (factor)                                                                                               \
            for (int64_t i = 0; i < columns; i++)                                                                      \
                out[i] = (COMPUTED)row[i] * factor[i];                                                                 \
        else                                                                                                           \
            for (int64_t i = 0; i < columns; i++)                                                                      \
                out[i] = (COMPUTED)row[i];                                                                             \
    }                                                                                                                  \
    NABLAD_WIDE static void gather_##STORED##_##COMPUTED(const struct nablad_gathering *g, const int64_t *numbers,     \
                                                         int64_t first) {                                              \
        const STORED *features = g->features;                                                                          \
        for (int64_t place = 0; place < g->count; place++) {                                                           \
            if (numbers && place + AHEAD < g->count)                                                                   \
                fetch((const char *)(features + numbers[place + AHEAD] * g->columns),                                  \
                      sizeof(STORED) * (size_t)g->columns);                                                            \
            scale_##STORED##_##COMPUTED(features + row_number(numbers, first, place) * g->columns, g->shift,           \
                                        g->factor, (COMPUTED *)g->x + place * g->columns, g->columns);                 \
        }                                                                                                              \
    }

SCALE_ROW(uint8_t, float)
SCALE_ROW(uint8_t, double)
SCALE_ROW(float, float)
SCALE_ROW(float, double)
SCALE_ROW(double, float)
SCALE_ROW(double, double)

static void gather_features(const struct nablad_gathering *g, const int64_t *numbers, int64_t first) {
    int wide = g->computed == NABLAD_FLOAT64;
    switch (g->stored) {
    case NABLAD_UINT8:
        (wide ? gather_uint8_t_double : gather_uint8_t_float)(g, numbers, first);
        break;
    case NABLAD_FLOAT32:
        (wide ? gather_float_double : gather_float_float)(g, numbers, first);
        break;
    default:
        (wide ? gather_double_double : gather_double_float)(g, numbers, first);
    }
}

/* Labels and values of the type of the computation are copied as they are. */
static void gather_targets(const struct nablad_gathering *g, const int64_t *numbers, int64_t first) {
    int64_t columns = g->target_columns;
    for (int64_t place = 0; place < g->count; place++) {
        const int64_t row = row_number(numbers, first, place);
        if (g->target == NABLAD_FLOAT64 && g->computed == NABLAD_FLOAT32)
            for (int64_t i = 0; i < columns; i++)
                ((float *)g->out)[place * columns + i] = (float)((const double *)g->targets)[row * columns + i];
        else
            memcpy((char *)g->out + place * columns * 8, (const char *)g->targets + row * columns * 8,
                   (size_t)columns * 8);
    }
}

NABLAD_EXPORT int nablad_gather(const struct nablad_gathering *g, const int64_t *numbers, int64_t first) {
    if (numbers) {
        /* As an unsigned number, a negative one is above any count. */
        uint64_t largest = 0;
        for (int64_t place = 0; place < g->count; place++)
            largest = (uint64_t)numbers[place] > largest ? (uint64_t)numbers[place] : largest;
        if (largest >= (uint64_t)g->rows)
            return -1;
    } else if (first < 0 || first > g->rows - g->count)
        return -1;
    gather_features(g, numbers, first);
    gather_targets(g, numbers, first);
    return 0;
}
