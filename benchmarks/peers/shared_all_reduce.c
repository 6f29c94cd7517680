/* A barrier among the processes of one host, which share memory, and the addition of their gradients with the update.

   `shared_all_reduce.py` says how a step is made of them. All functions are called by one thread in each process. */

#define _GNU_SOURCE
#include <linux/futex.h>
#include <sched.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Where two ranks run on two CPUs, nearly all waits are shorter. */
static const double SPIN_SECONDS = 300e-6;
/* A rank that is not there by then will not come: the others end with an error. */
static const double LIMIT_SECONDS = 60.0;

/* Numbers of a piece of the vectors: its sum stays in the first-level cache. */
enum { PIECE = 2048 };

/* The barrier, in shared memory that is zero at first; each word has a cache line of its own. */
struct barrier {
    _Atomic uint32_t arrivals; /* over all ranks and steps; the futex */
    char line[60];
    _Atomic uint32_t sleepers; /* ranks that sleep, or are about to */
};

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec + 1e-9 * now.tv_nsec;
}

/* Says that this rank has written what the others wait for. */
void arrive(struct barrier *barrier)
{
    atomic_fetch_add(&barrier->arrivals, 1);
    if (atomic_load(&barrier->sleepers))
        syscall(SYS_futex, &barrier->arrivals, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
}

/* Sleeps until there is another arrival than `seen`. */
static void sleep_after(struct barrier *barrier, uint32_t seen)
{
    const struct timespec limit = {.tv_sec = 1}; /* so that LIMIT_SECONDS are looked at */
    atomic_fetch_add(&barrier->sleepers, 1);
    syscall(SYS_futex, &barrier->arrivals, FUTEX_WAIT, seen, &limit, NULL, 0);
    atomic_fetch_sub(&barrier->sleepers, 1);
}

/* Waits for so many arrivals. Returns 0, or -1 if they do not come. */
int await_arrivals(struct barrier *barrier, uint32_t arrivals)
{
    const double begun = seconds();
    for (;;) {
        const uint32_t seen = atomic_load(&barrier->arrivals);
        if (seen >= arrivals)
            return 0;
        const double waited = seconds() - begun;
        if (waited > LIMIT_SECONDS)
            return -1;
        if (waited < SPIN_SECONDS)
            sched_yield();
        else
            sleep_after(barrier, seen);
    }
}

/* Subtracts `factor` times the sum of all ranks' gradients, in the order of the ranks, from weights.

   weights: (size,); gradients: that of rank 0, (size,); those of the next ranks are `stride` numbers behind each other. */
void update(float *restrict weights, size_t size, const float *restrict gradients, size_t stride, int ranks,
            float factor)
{
    float sum[PIECE];
    for (size_t start = 0; start < size; start += PIECE) {
        const size_t count = size - start < PIECE ? size - start : PIECE;
        const float *first = gradients + start, *last = first + (ranks - 1) * stride;
        for (size_t i = 0; i < count; i++)
            sum[i] = ranks > 1 ? first[i] : 0;
        for (const float *next = first + stride; next < last; next += stride)
            for (size_t i = 0; i < count; i++)
                sum[i] += next[i];
        for (size_t i = 0; i < count; i++)
            weights[start + i] -= factor * (sum[i] + last[i]);
    }
}
