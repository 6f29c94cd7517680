/* The worker's end of a run of steps. */
#include <sched.h>

#include "nablad.h"
#include "step.h"

enum { READY, OVER, LATER };

/* Writes a result into its slot; its gradient must be complete. */
NABLAD_EXPORT void nablad_step_report(const struct nablad_control *control, struct nablad_bell *bell,
                                      struct nablad_slot *slot, uint64_t run, uint64_t step, double cost_sum,
                                      uint64_t samples, uint64_t correct, double seconds)
{
    slot->result = (struct nablad_result){cost_sum, samples, correct, seconds, nablad_now()};
    atomic_store_explicit(&slot->stamp, nablad_stamp(run, step), memory_order_release);
    /* Sequentially consistent, as what the server does before it sleeps: one of the two sees the other. */
    atomic_fetch_add(&bell->rings, 1);
    if (atomic_load(&control->server_sleeps))
        nablad_futex_wake(&bell->rings);
}

/* Waits for a version of the weights, at most so many seconds.
 * Returns READY, OVER when the run is over, or LATER. */
NABLAD_EXPORT int nablad_step_wait(const struct nablad_control *control, uint64_t run, uint64_t version, double seconds)
{
    double now = nablad_now(), end = now + seconds;
    double spin = now + 1e-9 * (double)atomic_load_explicit(&control->spin_ns, memory_order_relaxed);
    for (;; now = nablad_now()) {
        uint32_t changes = atomic_load(&control->changes);
        if (atomic_load(&control->run) != run)
            return OVER;
        if (atomic_load(&control->version) >= version)
            return READY;
        if (now >= end)
            return LATER;
        if (now < spin)
            sched_yield(); /* to the server, if it has to run here */
        else
            nablad_futex_wait(&control->changes, changes, end - now);
    }
}
