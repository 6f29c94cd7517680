/* The identity of a compiled library. */
#include "nablad.h"

#ifndef NABLAD_ABI
#error "workers/native/compiler.py defines NABLAD_ABI: compile with it"
#endif

NABLAD_EXPORT int nablad_abi(void) { return NABLAD_ABI; }
