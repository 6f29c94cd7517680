/* Gathers rows of odd sizes into buffers that are exactly as long, and compares them with the formula. */
#include "gather.h"

#include <stdio.h>
#include <stdlib.h>

static int failures;

static void expect(int right, const char *message, long rows, long columns) {
    if (!right) {
        printf("%s: %ld rows, %ld columns\n", message, rows, columns);
        failures++;
    }
}

static void *allocated(size_t count, size_t bytes) {
    void *memory = malloc(count * bytes + 1); /* never of no bytes */
    if (!memory)
        abort();
    return memory;
}

static void gather(long rows, long columns) {
    uint8_t *features = allocated((size_t)(rows * columns), 1);
    int64_t *labels = allocated((size_t)rows, 8), *numbers = allocated((size_t)rows, 8);
    float *shift = allocated((size_t)columns, 4), *factor = allocated((size_t)columns, 4);
    float *x = allocated((size_t)(rows * columns), 4);
    int64_t *out = allocated((size_t)rows, 8);
    for (long i = 0; i < rows * columns; i++)
        features[i] = (uint8_t)(i * 7);
    for (long i = 0; i < columns; i++)
        shift[i] = (float)i / 3, factor[i] = 1 / (float)(i + 1);
    for (long i = 0; i < rows; i++)
        labels[i] = i * 10, numbers[i] = rows - 1 - i;
    struct nablad_gathering g = {features, labels, shift,          factor,         x,           out, rows,
                                 columns,  1,      rows,           NABLAD_UINT8,   NABLAD_FLOAT32, NABLAD_INT64};
    expect(nablad_gather(&g, numbers, 0) == 0, "refused", rows, columns);
    for (long row = 0; row < rows; row++) {
        expect(out[row] == 10 * numbers[row], "wrong label", rows, columns);
        for (long i = 0; i < columns; i++) {
            const float shifted = (float)features[numbers[row] * columns + i] - shift[i];
            expect(x[row * columns + i] == shifted * factor[i], "wrong number", rows, columns);
        }
    }
    expect(nablad_gather(&g, NULL, 0) == 0, "slice refused", rows, columns);
    expect(nablad_gather(&g, NULL, 1) == -1, "slice beyond the end", rows, columns);
    expect(nablad_gather(&g, NULL, -1) == -1, "slice before the start", rows, columns);
    numbers[rows / 2] = rows;
    expect(nablad_gather(&g, numbers, 0) == -1, "row beyond the end", rows, columns);
    numbers[rows / 2] = INT64_MIN;
    expect(nablad_gather(&g, numbers, 0) == -1, "negative row", rows, columns);
    free(features), free(labels), free(numbers), free(shift), free(factor), free(x), free(out);
}

int main(void) {
    for (long rows = 1; rows < 8; rows++)
        for (long columns = 1; columns < 40; columns++)
            gather(rows, columns);
    return failures != 0;
}
