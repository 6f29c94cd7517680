#include "tape.h"

#include <string.h>

#include "nablad.h"

NABLAD_EXPORT void nablad_play(const struct nablad_operation *operations, uint64_t count)
{
    for (const struct nablad_operation *each = operations; each < operations + count; each++) {
        if (!each->loop) {
            memset(each->arguments[0], 0, (size_t)each->lengths[0]);
            continue;
        }
        for (intptr_t number = 0; number < each->repeats; number++) {
            char *arguments[NABLAD_OPERANDS];
            for (int operand = 0; operand < NABLAD_OPERANDS; operand++)
                arguments[operand] = each->arguments[operand] + number * each->strides[operand];
            each->loop(arguments, each->lengths, each->steps, each->data);
        }
    }
}
