/* Rows of a data set, gathered, converted and scaled in one pass. */
#ifndef NABLAD_GATHER_H
#define NABLAD_GATHER_H

#include <stdint.h>

enum nablad_type { NABLAD_UINT8, NABLAD_FLOAT32, NABLAD_FLOAT64, NABLAD_INT64 };

/* Tables, and the buffers that a number of rows goes to; workers/native/gather.py has the same fields. All arrays are
 * C-contiguous and aligned, and no output overlaps anything. */
struct nablad_gathering {
    const void *features;    /* (rows, columns), uint8, float32 or float64 */
    const void *targets;     /* (rows, target_columns): labels, int64, or values, float64 */
    const void *shift;       /* (columns,) in the type of x, or NULL */
    const void *factor;      /* likewise */
    void *x;                 /* (count, columns), float32 or float64: (feature - shift) * factor */
    void *out;               /* (count, target_columns): labels, int64, or values in the type of x */
    int64_t rows;
    int64_t columns;
    int64_t target_columns;
    int64_t count;
    int32_t stored;          /* type of features */
    int32_t computed;        /* type of x */
    int32_t target;          /* type of targets */
};

/* Gathers the rows of these numbers, or, if there are no numbers, those from `first` on.
 * Returns 0, or -1 if a number is not that of a row; nothing is written then. */
int nablad_gather(const struct nablad_gathering *g, const int64_t *numbers, int64_t first);

#endif
