/* Prints the identity of the sources. */
#include "nablad.h"

#include <stdio.h>

int main(void) {
    printf("%d\n", nablad_abi());
    return 0;
}
