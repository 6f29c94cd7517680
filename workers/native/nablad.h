/* What all sources of the library share. */
#ifndef NABLAD_H
#define NABLAD_H

#include <limits.h> /* defines __GLIBC__ where glibc is the C library */

/* A function that Python calls; all others stay inside the library. */
#define NABLAD_EXPORT __attribute__((visibility("default")))

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define NABLAD_SANITIZED 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define NABLAD_SANITIZED 1
#endif

/* A function that is compiled for wide vectors too; the loader chooses by the CPU. AVX2 has no instruction that adds and
 * multiplies with one rounding, and the compiler may not use one elsewhere, so all variants have the same bits.
 * musl's loader cannot choose, and sanitizers are not ready when the choice is made. */
#if defined(__x86_64__) && defined(__GLIBC__) && !defined(NABLAD_SANITIZED) && \
    ((defined(__clang__) && __clang_major__ >= 14) || (!defined(__clang__) && __GNUC__ >= 6))
#define NABLAD_WIDE __attribute__((target_clones("avx2", "default")))
#else
#define NABLAD_WIDE
#endif

/* Digest of the sources that a library was compiled from. */
int nablad_abi(void);

#endif
