/* Included by update.c for each type T. No include guard: it is a template. */

/* Finite numbers have an exponent that is not all ones. */
NABLAD_WIDE static bool JOIN(is_finite, T)(const T *x, size_t count)
{
    BITS found = 0;
    for (size_t i = 0; i < count; i++) {
        BITS bits;
        memcpy(&bits, &x[i], sizeof bits);
        found |= (BITS)((bits & EXPONENT) == EXPONENT);
    }
    return !found;
}

NABLAD_WIDE static void JOIN(add, T)(T *out, const T *a, const T *b, size_t count)
{
    for (size_t i = 0; i < count; i++)
        out[i] = a[i] + b[i];
}

NABLAD_WIDE static void JOIN(squares, T)(double *lanes, const T *g, size_t count)
{
    size_t i = 0;
    for (; i + NABLAD_LANES <= count; i += NABLAD_LANES)
        for (size_t lane = 0; lane < NABLAD_LANES; lane++)
            lanes[lane] += (double)g[i + lane] * (double)g[i + lane];
    for (size_t lane = 0; i < count; i++, lane++)
        lanes[lane] += (double)g[i] * (double)g[i];
}

/* W ← W − f g */
NABLAD_WIDE static void JOIN(sgd, T)(T *restrict w, const T *restrict g, size_t count, const double *factors)
{
    const T f = (T)factors[0];
    for (size_t i = 0; i < count; i++) {
        T scaled = g[i] * f;
        w[i] = w[i] - scaled;
    }
}

/* v ← μ v − f g; W ← W + v */
NABLAD_WIDE static void JOIN(momentum, T)(T *restrict w, T *restrict v, const T *restrict g, size_t count,
                                          const double *factors)
{
    const T f = (T)factors[0], mu = (T)factors[1];
    for (size_t i = 0; i < count; i++) {
        T scaled = g[i] * f, damped = v[i] * mu;
        v[i] = damped - scaled;
        w[i] = w[i] + v[i];
    }
}

/* v ← μ v − f g; W ← W − f g + μ v */
NABLAD_WIDE static void JOIN(nesterov, T)(T *restrict w, T *restrict v, const T *restrict g, size_t count,
                                          const double *factors)
{
    const T f = (T)factors[0], mu = (T)factors[1];
    for (size_t i = 0; i < count; i++) {
        T scaled = g[i] * f, damped = v[i] * mu, moved = w[i] - scaled;
        v[i] = damped - scaled;
        T ahead = v[i] * mu;
        w[i] = moved + ahead;
    }
}

/* Adam; workers.mathematics.optimizers names its factors. */
NABLAD_WIDE static void JOIN(adam, T)(T *restrict w, T *restrict m, T *restrict v, const T *restrict g, size_t count,
                                      const double *factors)
{
    const T mean = (T)factors[0], beta1 = (T)factors[1], square = (T)factors[2], beta2 = (T)factors[3];
    const T correction = (T)factors[4], rate = (T)factors[6];
    const T eps = (T)(factors[5] < TINY ? TINY : factors[5]);
    for (size_t i = 0; i < count; i++) {
        T scaled = g[i] * mean, decayed = m[i] * beta1;
        m[i] = decayed + scaled;
        T squared = scaled * scaled, fading = v[i] * beta2;
        T weighted = squared * square;
        v[i] = fading + weighted;
        T root = SQRT(v[i]);
        T corrected = root * correction;
        T bounded = corrected + eps;
        T ratio = m[i] / bounded;
        T change = ratio * rate;
        w[i] = w[i] - change;
    }
}

static void JOIN(apply, T)(const struct nablad_update *update, size_t begin, const T *g, size_t count)
{
    T *w = (T *)update->weights + begin;
    T *first = update->moments[0] ? (T *)update->moments[0] + begin : NULL;
    T *second = update->moments[1] ? (T *)update->moments[1] + begin : NULL;
    switch (update->rule) {
    case NABLAD_SGD: JOIN(sgd, T)(w, g, count, update->factors); break;
    case NABLAD_MOMENTUM: JOIN(momentum, T)(w, first, g, count, update->factors); break;
    case NABLAD_NESTEROV: JOIN(nesterov, T)(w, first, g, count, update->factors); break;
    case NABLAD_ADAM: JOIN(adam, T)(w, first, second, g, count, update->factors); break;
    case NABLAD_RULES: break;
    }
}

/* Returns the sum of all parts at a place, added level by level: neighbours 2i and 2i+1, and one without a neighbour goes
 * up as it is. Sum i of a level lies where no later addition of the level reads. */
static const T *JOIN(tree_sum, T)(const struct nablad_update *update, size_t begin, size_t count, void *scratch)
{
    const T **addends = scratch;
    T *sums = (T *)((char *)scratch + POINTERS(update->parts));
    for (size_t i = 0; i < update->parts; i++)
        addends[i] = (const T *)update->gradients[i] + begin;
    for (size_t width = update->parts; width > 1; width = (width + 1) / 2) {
        for (size_t i = 0; i < width / 2; i++) {
            T *sum = sums + i * NABLAD_CHUNK;
            JOIN(add, T)(sum, addends[2 * i], addends[2 * i + 1], count);
            addends[i] = sum;
        }
        if (width % 2)
            addends[width / 2] = addends[width - 1];
    }
    return addends[0];
}

static void JOIN(update_range, T)(const struct nablad_update *update, size_t begin, size_t end, double *lanes,
                                  void *scratch)
{
    for (; begin < end; begin += NABLAD_CHUNK) {
        size_t count = end - begin < NABLAD_CHUNK ? end - begin : NABLAD_CHUNK;
        const T *g = JOIN(tree_sum, T)(update, begin, count, scratch);
        if (lanes)
            JOIN(squares, T)(lanes, g, count);
        JOIN(apply, T)(update, begin, g, count);
    }
}
