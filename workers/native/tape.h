/* Tapes: numpy's own inner loops, called again with the same arrays. */
#ifndef NABLAD_TAPE_H
#define NABLAD_TAPE_H

#include <stdint.h>

/* PyUFuncGenericFunction of numpy: arguments, lengths, steps in bytes, and data of the loop. */
typedef void nablad_loop(char **arguments, const intptr_t *lengths, const intptr_t *steps, void *data);

enum { NABLAD_OPERANDS = 3, NABLAD_LENGTHS = 4, NABLAD_STEPS = 9 };

/* One call of a loop, or several with arguments that move on by their strides; without a loop, zeros for lengths[0] bytes
 * of the first argument. The same fields in tape.py. */
struct nablad_operation {
    nablad_loop *loop;
    void *data;
    char *arguments[NABLAD_OPERANDS];
    intptr_t lengths[NABLAD_LENGTHS];
    intptr_t steps[NABLAD_STEPS];
    intptr_t repeats;
    intptr_t strides[NABLAD_OPERANDS];
};

void nablad_play(const struct nablad_operation *operations, uint64_t count);

#endif
