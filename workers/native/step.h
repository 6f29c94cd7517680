/* The memory that the two ends of a run of steps share, and how they wait for each other. README.md explains the protocol. */
#ifndef NABLAD_STEP_H
#define NABLAD_STEP_H

#include <stdatomic.h>
#include <stdint.h>

_Static_assert(ATOMIC_INT_LOCK_FREE == 2 && ATOMIC_LLONG_LOCK_FREE == 2, "atomics between processes need no lock");

/* Written by the parameter server alone; workers map it for reading. */
struct nablad_control {
    _Alignas(64) _Atomic uint32_t changes; /* counts all changes of run and version; workers sleep on it */
    _Alignas(64) _Atomic uint64_t run;     /* number of the present run; 0: none */
    _Atomic uint64_t version;              /* of the weights */
    _Atomic uint64_t spin_ns;              /* how long a worker polls before it sleeps */
    _Alignas(64) _Atomic uint32_t server_sleeps;
};

/* Written by all workers of a job: nothing depends on it but how soon the server wakes. */
struct nablad_bell {
    _Alignas(64) _Atomic uint32_t rings; /* counts results; the server sleeps on it */
};

/* The sums of a part of a step. */
struct nablad_result {
    double cost_sum;
    uint64_t samples;
    uint64_t correct;
    double seconds; /* of computation */
    double time;    /* when it was written, in monotonic seconds */
};

/* Written by one worker, which may write anything. */
struct nablad_slot {
    _Alignas(64) _Atomic uint64_t stamp; /* of the step that the result answers; written last */
    struct nablad_result result;
};

/* The same sizes are in workers/transport/run_memory.py. */
_Static_assert(sizeof(struct nablad_control) == 192 && sizeof(struct nablad_bell) == 64 && sizeof(struct nablad_slot) == 64,
               "Python lays out this memory");

/* Tells the results of different runs apart, also those of the same step. */
static inline uint64_t nablad_stamp(uint64_t run, uint64_t step) { return run << 40 | (step & ((UINT64_C(1) << 40) - 1)); }

double nablad_now(void); /* monotonic seconds, as Python's time.perf_counter */

/* Sleeps while *word is `value`, at most so many seconds; may return early. */
void nablad_futex_wait(const _Atomic uint32_t *word, uint32_t value, double seconds);
void nablad_futex_wake(const _Atomic uint32_t *word);

#endif
