/* The arithmetic of an update: the sum of gradients in a fixed tree, and the rules of the optimizers. */
#ifndef NABLAD_UPDATE_H
#define NABLAD_UPDATE_H

#include <stdbool.h>
#include <stddef.h>

enum nablad_rule { NABLAD_SGD, NABLAD_MOMENTUM, NABLAD_NESTEROV, NABLAD_ADAM, NABLAD_RULES };

enum { NABLAD_FACTORS = 8 }; /* room for the numbers of an update, as workers.mathematics.optimizers makes them */
enum { NABLAD_LANES = 8 };   /* sums of squares are added in so many lanes; element i belongs to lane i % 8 */

/* A network's vectors, and what one update does with them. All vectors have one type, float or double. */
struct nablad_update {
    bool is_double;
    enum nablad_rule rule;
    void *weights;
    void *moments[2];
    size_t parts;
    const void *const *gradients; /* one for each part */
    const double *factors;
};

/* Numbers that are added and applied together, so that they stay in the first cache; a multiple of NABLAD_LANES. */
enum { NABLAD_CHUNK = 1024 };

/* Bytes of scratch that nablad_update_range needs for so many parts. */
size_t nablad_update_scratch(size_t parts);

/* Adds the gradients of the numbers from begin to end, and updates their weights and moments. With lanes, also adds the
 * squares of the summed gradient to them. The result does not depend on how the vector is cut into ranges. */
void nablad_update_range(const struct nablad_update *update, size_t begin, size_t end, double *lanes, void *scratch);

/* Whether all numbers of the range are finite. */
bool nablad_is_finite(const void *vector, bool is_double, size_t begin, size_t end);

#endif
