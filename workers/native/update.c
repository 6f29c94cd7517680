/* The arithmetic of an update, once for float and once for double: update_typed.h has the code.
 * Every operation is rounded on its own and in the order of the Python path, so both have the same bits. */
#include "update.h"

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "nablad.h"

/* Bytes of the pointers at the beginning of the scratch. */
#define POINTERS(parts) (((parts) * sizeof(void *) + 63) / 64 * 64)

#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)

#define T float
#define BITS uint32_t
#define EXPONENT UINT32_C(0x7f800000)
#define TINY FLT_MIN
#define SQRT sqrtf
#include "update_typed.h"
#undef T
#undef BITS
#undef EXPONENT
#undef TINY
#undef SQRT

#define T double
#define BITS uint64_t
#define EXPONENT UINT64_C(0x7ff0000000000000)
#define TINY DBL_MIN
#define SQRT sqrt
#include "update_typed.h"

size_t nablad_update_scratch(size_t parts)
{
    return POINTERS(parts) + parts / 2 * NABLAD_CHUNK * sizeof(double);
}

void nablad_update_range(const struct nablad_update *update, size_t begin, size_t end, double *lanes, void *scratch)
{
    if (update->is_double)
        update_range_double(update, begin, end, lanes, scratch);
    else
        update_range_float(update, begin, end, lanes, scratch);
}

bool nablad_is_finite(const void *vector, bool is_double, size_t begin, size_t end)
{
    return is_double ? is_finite_double((const double *)vector + begin, end - begin)
                     : is_finite_float((const float *)vector + begin, end - begin);
}
