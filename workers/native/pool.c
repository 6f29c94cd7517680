#include "pool.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

#include "step.h"

enum { MOST_THREADS = 64 };

/* A claim is the number of a loop, and in its lower half the next item that nobody has: so a thread that wakes too late
 * cannot take an item of the next loop for one of its own. */
#define ITEMS UINT64_C(0xffffffff)
#define LOOP (ITEMS + 1)

struct nablad_pool {
    _Alignas(64) _Atomic uint64_t claim;
    _Alignas(64) _Atomic uint64_t done;  /* items of the present loop */
    _Alignas(64) _Atomic uint32_t loops; /* counts loops; threads sleep on it */
    _Atomic bool closing;
    _Atomic uint64_t items;
    nablad_work *work;
    void *context;
    int threads;
    struct helper {
        pthread_t thread;
        struct nablad_pool *pool;
        int number;
    } helpers[MOST_THREADS];
};

/* Works on items of one loop until none is left. */
static void work_on(struct nablad_pool *pool, uint64_t loop, int thread)
{
    uint64_t claim = atomic_load(&pool->claim);
    while ((claim & ~ITEMS) == loop && (claim & ITEMS) < atomic_load(&pool->items)) {
        if (!atomic_compare_exchange_weak(&pool->claim, &claim, claim + 1))
            continue;
        /* Claimed, so the loop cannot end before this item is done, and its work and context are those of now. */
        pool->work(pool->context, (size_t)(claim & ITEMS), thread);
        atomic_fetch_add(&pool->done, 1);
        claim = atomic_load(&pool->claim);
    }
}

static void *help(void *argument)
{
    struct helper *helper = argument;
    struct nablad_pool *pool = helper->pool;
    uint32_t seen = 0;
    while (!atomic_load(&pool->closing)) {
        uint32_t loops = atomic_load(&pool->loops);
        if (loops == seen) {
            nablad_futex_wait(&pool->loops, seen, 1.0);
            continue;
        }
        seen = loops;
        work_on(pool, atomic_load(&pool->claim) & ~ITEMS, helper->number);
    }
    return NULL;
}

struct nablad_pool *nablad_pool_new(int threads)
{
    struct nablad_pool *pool = aligned_alloc(64, (sizeof *pool + 63) / 64 * 64);
    if (!pool)
        return NULL;
    *pool = (struct nablad_pool){.threads = 1};
    for (int number = 1; number < threads && number < MOST_THREADS; number++) {
        struct helper *helper = &pool->helpers[number];
        *helper = (struct helper){.pool = pool, .number = number};
        if (pthread_create(&helper->thread, NULL, help, helper))
            break;
        pool->threads++;
    }
    return pool;
}

void nablad_pool_free(struct nablad_pool *pool)
{
    if (!pool)
        return;
    atomic_store(&pool->closing, true);
    atomic_fetch_add(&pool->loops, 1);
    nablad_futex_wake(&pool->loops);
    for (int number = 1; number < pool->threads; number++)
        pthread_join(pool->helpers[number].thread, NULL);
    free(pool);
}

int nablad_pool_threads(const struct nablad_pool *pool) { return pool->threads; }

void nablad_pool_run(struct nablad_pool *pool, nablad_work *work, void *context, size_t items)
{
    if (pool->threads == 1 || items < 2) {
        for (size_t item = 0; item < items; item++)
            work(context, item, 0);
        return;
    }
    uint64_t loop = (atomic_load(&pool->claim) & ~ITEMS) + LOOP;
    pool->work = work;
    pool->context = context;
    atomic_store(&pool->done, 0);
    /* Nobody claims an item of the old loop: its claims are beyond its items, and stay so until this one begins. */
    atomic_store(&pool->claim, loop | ITEMS);
    atomic_store(&pool->items, items);
    atomic_store(&pool->claim, loop);
    atomic_fetch_add(&pool->loops, 1);
    nablad_futex_wake(&pool->loops);
    work_on(pool, loop, 0);
    while (atomic_load(&pool->done) < items)
        sched_yield();
}
