/* The parameter server's end of a run of steps: waits for all results of a step, validates them, updates the weights and
 * publishes the next version, many times over without the interpreter. */
#include <math.h>
#include <sched.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "nablad.h"
#include "pool.h"
#include "step.h"
#include "update.h"

enum { DONE, LATER, INTERRUPTED, REJECTED };

/* Numbers of a piece of work for one thread: norms are sums of the sums over such blocks, so it is fixed. */
enum { BLOCK = 128 * 1024 };
/* Bytes of a vector from which several threads update it. */
enum { LARGE = 1 << 20 };
/* Longest time that computing one result can take; a worker that says more has not measured it. */
#define MOST_SECONDS 1e6

/* A step as it is booked. Seconds by activity; the same fields in service/parameter_server/shard/step_core.py. */
struct nablad_record {
    double cost_sum;
    uint64_t samples;
    uint64_t correct;
    double seconds; /* from the update before to this one */
    double waiting, inspecting, updating, dealing;
    double computed; /* of the worker that computed longest */
};
_Static_assert(sizeof(struct nablad_record) == 72, "Python reads it");

/* A part of the vector that lies in one block and in one layer. */
struct piece {
    size_t begin, end, layer;
};

struct part {
    const struct nablad_slot *slot;
    size_t owner; /* number of its worker */
    double lag;   /* seconds behind the first result of each step, summed up */
    bool arrived;
    struct nablad_result result; /* copied when it arrived: its worker may write to the slot at any time */
};

struct nablad_core {
    struct nablad_control *control;
    struct nablad_bell *bell;
    struct nablad_pool *pool;
    struct nablad_update update;
    size_t size;
    size_t layers;
    size_t piece_count;
    struct piece *pieces;
    double *lanes;    /* of each piece */
    size_t *block_at; /* first piece of each block */
    size_t blocks;
    uint64_t run, version;
    size_t part_count, missing;
    struct part *parts;
    const void **gradients;
    double *owner_seconds;
    char *scratch; /* of each thread */
    size_t scratch_bytes;
    double spin_seconds;
    double mark, begun; /* end of the activity before, and of the update before */
    bool measured;
    bool sound; /* no result of the present step has an infinite number */
    _Atomic bool finite;
    const void *inspected; /* vector whose numbers are looked at */
    _Alignas(64) _Atomic uint32_t interrupted;
};

static size_t first_of(size_t a, size_t b) { return a < b ? a : b; }

/* Cuts the vector into pieces, at the ends of blocks and at the beginnings of layers. */
static bool cut(struct nablad_core *core, const uint64_t *starts, size_t layers)
{
    core->blocks = (core->size + BLOCK - 1) / BLOCK;
    core->pieces = calloc(core->blocks + layers, sizeof *core->pieces);
    core->lanes = calloc((core->blocks + layers) * NABLAD_LANES, sizeof *core->lanes);
    core->block_at = calloc(core->blocks + 1, sizeof *core->block_at);
    if (!core->pieces || !core->lanes || !core->block_at)
        return false;
    size_t layer = 0;
    for (size_t block = 0; block < core->blocks; block++) {
        core->block_at[block] = core->piece_count;
        size_t stop = first_of((block + 1) * BLOCK, core->size);
        for (size_t begin = block * BLOCK; begin < stop;) {
            while (layer + 1 < layers && starts[layer + 1] <= begin)
                layer++;
            size_t end = layer + 1 < layers ? first_of(starts[layer + 1], stop) : stop;
            core->pieces[core->piece_count++] = (struct piece){begin, end, layer};
            begin = end;
        }
    }
    core->block_at[core->blocks] = core->piece_count;
    return true;
}

static void forget_parts(struct nablad_core *core)
{
    free(core->parts);
    free(core->gradients);
    free(core->owner_seconds);
    free(core->scratch);
    core->parts = NULL;
    core->gradients = NULL;
    core->owner_seconds = NULL;
    core->scratch = NULL;
    core->part_count = 0;
}

NABLAD_EXPORT void nablad_core_free(struct nablad_core *core)
{
    if (!core)
        return;
    forget_parts(core);
    nablad_pool_free(core->pool);
    free(core->pieces);
    free(core->lanes);
    free(core->block_at);
    free(core);
}

/* Returns NULL without memory. */
NABLAD_EXPORT struct nablad_core *nablad_core_new(struct nablad_control *control, struct nablad_bell *bell, void *weights,
                                                  void *first_moment, void *second_moment, uint64_t size, int is_double,
                                                  int rule, const uint64_t *layer_starts, uint64_t layers, int threads)
{
    struct nablad_core *core = aligned_alloc(64, (sizeof *core + 63) / 64 * 64);
    if (!core)
        return NULL;
    *core = (struct nablad_core){.control = control, .bell = bell, .size = size, .layers = layers};
    core->update = (struct nablad_update){.is_double = is_double != 0,
                                          .rule = (enum nablad_rule)rule,
                                          .weights = weights,
                                          .moments = {first_moment, second_moment}};
    size_t bytes = size * (is_double ? sizeof(double) : sizeof(float));
    core->pool = nablad_pool_new(bytes < LARGE ? 1 : threads);
    if (!core->pool || !cut(core, layer_starts, layers)) {
        nablad_core_free(core);
        return NULL;
    }
    return core;
}

static void publish(struct nablad_core *core)
{
    atomic_store(&core->control->version, core->version);
    atomic_fetch_add(&core->control->changes, 1);
    nablad_futex_wake(&core->control->changes);
}

/* Publishes the version that was left unpublished. */
NABLAD_EXPORT void nablad_core_publish(struct nablad_core *core) { publish(core); }

static void expect_results(struct nablad_core *core)
{
    core->missing = core->part_count;
    core->sound = true;
    for (size_t number = 0; number < core->part_count; number++)
        core->parts[number].arrived = false;
}

/* Begins a run of a new number, with the weights at a version. For each part: its slot, its gradient and the number of its
 * worker, below `owners`. Spinning: how long workers poll before they sleep, and the server. Returns whether there was
 * memory. */
NABLAD_EXPORT int nablad_core_begin(struct nablad_core *core, uint64_t run, uint64_t version, uint64_t parts,
                                    struct nablad_slot *const *slots, void *const *gradients, const uint64_t *owners,
                                    double worker_spin, double server_spin)
{
    forget_parts(core);
    core->scratch_bytes = (nablad_update_scratch(parts) + 63) / 64 * 64;
    core->parts = calloc(parts, sizeof *core->parts);
    core->gradients = calloc(parts, sizeof *core->gradients);
    core->owner_seconds = calloc(parts, sizeof *core->owner_seconds);
    core->scratch = aligned_alloc(64, core->scratch_bytes * (size_t)nablad_pool_threads(core->pool));
    if (!core->parts || !core->gradients || !core->owner_seconds || !core->scratch) {
        forget_parts(core);
        return 0;
    }
    core->part_count = parts;
    for (size_t number = 0; number < parts; number++) {
        core->parts[number] = (struct part){.slot = slots[number], .owner = owners[number]};
        core->gradients[number] = gradients[number];
    }
    core->update.parts = parts;
    core->update.gradients = core->gradients;
    core->run = run;
    core->version = version;
    core->spin_seconds = server_spin;
    expect_results(core);
    atomic_store(&core->control->spin_ns, (uint64_t)(1e9 * worker_spin));
    atomic_store(&core->control->run, run);
    publish(core);
    return 1;
}

/* Ends the run: workers look for orders on their connections. */
NABLAD_EXPORT void nablad_core_end(struct nablad_core *core)
{
    atomic_store(&core->control->run, 0);
    publish(core);
}

/* Makes nablad_core_run return soon; any thread may call it. */
NABLAD_EXPORT void nablad_core_interrupt(struct nablad_core *core)
{
    atomic_store(&core->interrupted, 1);
    atomic_fetch_add(&core->bell->rings, 1);
    nablad_futex_wake(&core->bell->rings);
}

/* Returns whether the result of a part for the present step has arrived. */
NABLAD_EXPORT int nablad_core_has_result(const struct nablad_core *core, uint64_t part)
{
    return part < core->part_count && core->parts[part].arrived;
}

/* Returns the seconds that results of a part came behind the first ones of their steps, in this run. */
NABLAD_EXPORT double nablad_core_lag(const struct nablad_core *core, uint64_t part)
{
    return part < core->part_count ? core->parts[part].lag : 0.0;
}

/* Where the parameter server's stopwatch stands: times[0] is the end of the last activity, times[1] of the last update. */
NABLAD_EXPORT void nablad_core_set_times(struct nablad_core *core, const double *times)
{
    core->mark = times[0];
    core->begun = times[1];
}

NABLAD_EXPORT void nablad_core_times(const struct nablad_core *core, double *times)
{
    times[0] = core->mark;
    times[1] = core->begun;
}

static void inspect_block(void *context, size_t block, int thread)
{
    (void)thread;
    struct nablad_core *core = context;
    size_t end = first_of((block + 1) * BLOCK, core->size);
    if (!nablad_is_finite(core->inspected, core->update.is_double, block * BLOCK, end))
        atomic_store(&core->finite, false);
}

static bool is_finite_vector(struct nablad_core *core, const void *vector)
{
    atomic_store(&core->finite, true);
    core->inspected = vector;
    nablad_pool_run(core->pool, inspect_block, core, core->blocks);
    return atomic_load(&core->finite);
}

/* Adds the time since the last activity to one of them. */
static double lap(struct nablad_core *core, double *activity)
{
    double now = nablad_now();
    *activity += now - core->mark;
    core->mark = now;
    return now;
}

/* Reads each field once, so that the numbers that are validated are those that are booked, whatever its worker writes. */
static struct nablad_result read_result(const struct nablad_slot *slot)
{
    const volatile struct nablad_result *result = &slot->result;
    return (struct nablad_result){.cost_sum = result->cost_sum,
                                  .samples = result->samples,
                                  .correct = result->correct,
                                  .seconds = result->seconds,
                                  .time = result->time};
}

/* Takes the results that have arrived, and inspects their gradients while others are awaited. */
static void take_results(struct nablad_core *core, const uint64_t *samples, struct nablad_record *record)
{
    for (size_t number = 0; number < core->part_count; number++) {
        struct part *part = &core->parts[number];
        if (part->arrived || atomic_load_explicit(&part->slot->stamp, memory_order_acquire) !=
                                 nablad_stamp(core->run, core->version))
            continue;
        lap(core, &record->waiting);
        part->result = read_result(part->slot);
        if (!(part->result.time >= core->begun && part->result.time <= core->mark))
            part->result.time = core->mark; /* a worker may write any time */
        part->arrived = true;
        core->missing--;
        if (part->result.samples != samples[number] || part->result.correct > part->result.samples ||
            !isfinite(part->result.cost_sum) || !is_finite_vector(core, core->gradients[number]))
            core->sound = false;
        lap(core, &record->inspecting);
    }
}

/* Waits until all results of the step are there. */
static int await_results(struct nablad_core *core, const uint64_t *samples, struct nablad_record *record, double end)
{
    double spin = core->spin_seconds > 0 ? nablad_now() + core->spin_seconds : 0;
    for (;;) {
        uint32_t rings = atomic_load(&core->bell->rings);
        take_results(core, samples, record);
        if (!core->sound)
            return REJECTED;
        if (!core->missing)
            return DONE;
        double now = lap(core, &record->waiting);
        if (atomic_exchange(&core->interrupted, 0))
            return INTERRUPTED;
        if (now >= end)
            return LATER;
        if (now < spin) {
            sched_yield();
            continue;
        }
        atomic_store(&core->control->server_sleeps, 1);
        nablad_futex_wait(&core->bell->rings, rings, end - now);
        atomic_store(&core->control->server_sleeps, 0);
        lap(core, &record->waiting);
    }
}

static void update_block(void *context, size_t block, int thread)
{
    struct nablad_core *core = context;
    void *scratch = core->scratch + (size_t)thread * core->scratch_bytes;
    for (size_t number = core->block_at[block]; number < core->block_at[block + 1]; number++) {
        double *lanes = NULL;
        if (core->measured) {
            lanes = &core->lanes[number * NABLAD_LANES];
            memset(lanes, 0, NABLAD_LANES * sizeof *lanes);
        }
        nablad_update_range(&core->update, core->pieces[number].begin, core->pieces[number].end, lanes, scratch);
    }
}

/* Adds the squares of each layer: the lanes of a piece in their order, and the pieces in theirs. */
static void add_lanes(const struct nablad_core *core, double *squares)
{
    memset(squares, 0, core->layers * sizeof *squares);
    for (size_t number = 0; number < core->piece_count; number++) {
        double square = 0;
        for (size_t lane = 0; lane < NABLAD_LANES; lane++)
            square += core->lanes[number * NABLAD_LANES + lane];
        squares[core->pieces[number].layer] += square;
    }
}

/* Books the sums of all results in the order of their parts. */
static void add_sums(struct nablad_core *core, struct nablad_record *record)
{
    double first = INFINITY;
    memset(core->owner_seconds, 0, core->part_count * sizeof *core->owner_seconds);
    for (size_t number = 0; number < core->part_count; number++) {
        struct part *part = &core->parts[number];
        record->cost_sum += part->result.cost_sum;
        record->samples += part->result.samples;
        record->correct += part->result.correct;
        if (part->result.seconds > 0 && part->result.seconds < MOST_SECONDS)
            core->owner_seconds[part->owner] += part->result.seconds;
        if (core->owner_seconds[part->owner] > record->computed)
            record->computed = core->owner_seconds[part->owner];
        if (part->result.time < first)
            first = part->result.time;
    }
    for (size_t number = 0; number < core->part_count; number++)
        core->parts[number].lag += core->parts[number].result.time - first;
}

/* Makes up to so many steps, for at most so many seconds, or until something needs the interpreter.
 *
 * samples          of each part, in all steps but the last one of these
 * last_samples     of each part in the last one
 * factors          NABLAD_FACTORS numbers for each step
 * measured         for each step, whether sums of squares of its gradient are wanted
 * records, squares of each step, and of each measured step by layer; records must be zero for the first step unless a call
 *                  before ended within it
 * publish_last     whether the version after the last step is published; otherwise workers wait for nablad_core_publish
 * made             number of steps that were made
 *
 * Returns DONE after all steps; LATER when the time is over, at once after a step where there was one; INTERRUPTED;
 * REJECTED when a result of the step after those that were made may not count, which has changed nothing. */
NABLAD_EXPORT int nablad_core_run(struct nablad_core *core, uint64_t steps, const uint64_t *samples,
                                  const uint64_t *last_samples, const double *factors, const uint8_t *measured,
                                  struct nablad_record *records, double *squares, int publish_last, double seconds,
                                  uint64_t *made)
{
    double end = nablad_now() + seconds;
    for (*made = 0; *made < steps;) {
        struct nablad_record *record = &records[*made];
        bool last = *made + 1 == steps;
        int status = await_results(core, last ? last_samples : samples, record, end);
        if (status != DONE)
            return status;
        core->measured = measured[*made] != 0;
        core->update.factors = factors + *made * NABLAD_FACTORS;
        add_sums(core, record);
        nablad_pool_run(core->pool, update_block, core, core->blocks);
        core->version++;
        double updated = lap(core, &record->updating);
        record->seconds = updated - core->begun;
        core->begun = updated;
        expect_results(core);
        if (!last || publish_last)
            publish(core);
        if (core->measured)
            add_lanes(core, squares + *made * core->layers);
        lap(core, &record->dealing);
        ++*made;
        if (!last && (updated >= end || atomic_load(&core->interrupted))) {
            bool interrupted = atomic_exchange(&core->interrupted, 0);
            return interrupted ? INTERRUPTED : LATER;
        }
    }
    return DONE;
}
