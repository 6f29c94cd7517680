/* Threads that share one large loop with the thread that asks for it. */
#ifndef NABLAD_POOL_H
#define NABLAD_POOL_H

#include <stddef.h>

struct nablad_pool;

/* Work on one item; called by several threads at a time, with the number of the thread, from 0. */
typedef void nablad_work(void *context, size_t item, int thread);

/* Returns a pool of so many threads, the caller's own included; NULL without memory. Fewer where the system has no more. */
struct nablad_pool *nablad_pool_new(int threads);
void nablad_pool_free(struct nablad_pool *pool);
int nablad_pool_threads(const struct nablad_pool *pool);

/* Does all items, and returns when they are done. The caller works too, and waits for no thread that has not begun. */
void nablad_pool_run(struct nablad_pool *pool, nablad_work *work, void *context, size_t items);

#endif
