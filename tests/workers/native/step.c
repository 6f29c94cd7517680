/* Makes steps with workers and a server in threads, of which either one is delayed, interrupted or broken off at random,
 * and compares the weights with those of a plain loop. Ends with a time-out if one of them sleeps for ever. */
#define _GNU_SOURCE
#include "pool.h"
#include "step.h"

#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* As Python calls them. */
enum { DONE, LATER, INTERRUPTED, REJECTED };
enum { READY, OVER };
struct nablad_core;
struct record {
    double cost_sum;
    uint64_t samples, correct;
    double seconds, waiting, inspecting, updating, dealing, computed;
};
struct nablad_core *nablad_core_new(struct nablad_control *, struct nablad_bell *, void *, void *, void *, uint64_t, int,
                                    int, const uint64_t *, uint64_t, int);
int nablad_core_begin(struct nablad_core *, uint64_t, uint64_t, uint64_t, struct nablad_slot *const *, void *const *,
                      const uint64_t *, double, double);
int nablad_core_run(struct nablad_core *, uint64_t, const uint64_t *, const uint64_t *, const double *, const uint8_t *,
                    struct record *, double *, int, double, uint64_t *);
void nablad_core_publish(struct nablad_core *), nablad_core_end(struct nablad_core *),
    nablad_core_interrupt(struct nablad_core *), nablad_core_free(struct nablad_core *);
void nablad_step_report(const struct nablad_control *, struct nablad_bell *, struct nablad_slot *, uint64_t, uint64_t,
                        double, uint64_t, uint64_t, double);
int nablad_step_wait(const struct nablad_control *, uint64_t, uint64_t, double);

enum { WORKERS = 3, MOST_SIZE = 262147, FACTORS = 8, CALL = 16, LAYERS = 3, SAMPLES = 5 };

static struct nablad_control control;
static struct nablad_bell bell;
static struct nablad_slot slots[WORKERS];
static float gradients[WORKERS][MOST_SIZE], weights[MOST_SIZE], velocity[MOST_SIZE];
static size_t size;
static double spin;
static bool patient; /* nobody wakes by himself: a wake-up that is missed is a hang */
static struct nablad_core *core;
/* What an order says: run and step, in one number that changes last. 0: none; ALL_DONE: go home. */
#define ALL_DONE UINT64_MAX
static _Atomic uint64_t order_run, order_step, orders;
static _Atomic bool quiet;
static int failures;

static uint32_t draw(uint32_t *state)
{
    *state = *state * 1664525 + 1013904223;
    return *state >> 8;
}

/* Mostly nothing, sometimes a turn for another thread, and now and then so long that the other end sleeps. */
static void dawdle(uint32_t *state)
{
    uint32_t drawn = draw(state) % 256;
    if (drawn < 2)
        usleep(drawn * 300);
    else if (drawn < 40)
        sched_yield();
}

static void expect(bool right, const char *message)
{
    if (!right) {
        printf("%s\n", message);
        failures++;
    }
}

/* The gradient of a part, from the weights that all agree on and numbers that only this step has. */
static float gradient(const float *w, uint64_t step, size_t part, size_t i)
{
    return w[i] * 0.25f + (float)((step * 31 + part * 17 + i * 7) % 101) - 50.0f;
}

static void *work(void *argument)
{
    size_t part = (size_t)argument;
    uint32_t random = 77 + (uint32_t)part;
    for (uint64_t seen = 0;;) {
        uint64_t number = atomic_load(&orders), run = atomic_load(&order_run), step = atomic_load(&order_step);
        if (number == seen || number % 2 || number != atomic_load(&orders)) {
            sched_yield();
            continue;
        }
        seen = number;
        if (run == ALL_DONE)
            return NULL;
        for (int ready = run ? READY : OVER; ready == READY; step++) {
            dawdle(&random);
            /* It never began: the weights may change at any time. */
            if (atomic_load(&control.run) != run)
                break;
            for (size_t i = 0; i < size; i++)
                gradients[part][i] = gradient(weights, step, part, i);
            nablad_step_report(&control, &bell, &slots[part], run, step, 1.0 / (double)(step + part + 1), SAMPLES, part,
                               1e-3);
            while ((ready = nablad_step_wait(&control, run, step + 1, patient ? 1e6 : 0.01)) != READY && ready != OVER)
                dawdle(&random);
        }
    }
}

static void *interrupt(void *argument)
{
    (void)argument;
    uint32_t random = 5;
    while (!patient && !atomic_load(&quiet)) {
        usleep(draw(&random) % 2000);
        nablad_core_interrupt(core);
    }
    return NULL;
}

static void give_order(uint64_t run, uint64_t step)
{
    atomic_fetch_add(&orders, 1);
    atomic_store(&order_run, run);
    atomic_store(&order_step, step);
    atomic_fetch_add(&orders, 1);
}

static void begin(uint64_t run, uint64_t version)
{
    struct nablad_slot *slot_of[WORKERS];
    void *gradient_of[WORKERS];
    uint64_t owners[WORKERS];
    for (size_t part = 0; part < WORKERS; part++) {
        slot_of[part] = &slots[part];
        gradient_of[part] = gradients[part];
        owners[part] = part / 2;
    }
    expect(nablad_core_begin(core, run, version, WORKERS, slot_of, gradient_of, owners, spin, spin) == 1, "no memory");
    give_order(run, version);
}

/* The same steps, one after the other: momentum, and the sum of the parts in the tree of three. */
static void make_plain_steps(float *w, float *v, uint64_t steps, double factor)
{
    for (uint64_t step = 0; step < steps; step++)
        for (size_t i = 0; i < size; i++) {
            float sum = gradient(w, step, 0, i) + gradient(w, step, 1, i);
            sum = sum + gradient(w, step, 2, i);
            float scaled = sum * (float)factor, damped = v[i] * 0.5f;
            v[i] = damped - scaled;
            w[i] = w[i] + v[i];
        }
}

static double expected_cost(uint64_t step)
{
    double cost = 0;
    for (size_t part = 0; part < WORKERS; part++)
        cost += 1.0 / (double)(step + part + 1);
    return cost;
}

/* Makes the steps of one training, in calls and runs that end at random. */
static void train(size_t numbers, uint64_t steps, double spin_seconds, int threads)
{
    size = numbers;
    spin = spin_seconds;
    memset(weights, 0, sizeof weights);
    memset(velocity, 0, sizeof velocity);
    memset(slots, 0, sizeof slots);
    const uint64_t layers[LAYERS] = {0, 3, numbers / 2}, samples[WORKERS] = {SAMPLES, SAMPLES, SAMPLES};
    core = nablad_core_new(&control, &bell, weights, velocity, NULL, size, 0, 1, layers, LAYERS, threads);
    if (!core)
        abort();
    const double factor = 1.0 / 512;
    double factors[CALL * FACTORS], squares[CALL * LAYERS];
    uint8_t measured[CALL];
    for (size_t number = 0; number < CALL; number++) {
        factors[number * FACTORS] = factor;
        factors[number * FACTORS + 1] = 0.5;
        measured[number] = number % 3 == 0;
    }
    pthread_t workers[WORKERS], interrupter;
    give_order(0, 0);
    atomic_store(&quiet, false);
    for (size_t part = 0; part < WORKERS; part++)
        pthread_create(&workers[part], NULL, work, (void *)part);
    pthread_create(&interrupter, NULL, interrupt, NULL);
    uint32_t random = 1;
    uint64_t run = 1, version = 0;
    begin(run, version);
    while (version < steps) {
        struct record records[CALL] = {{0}};
        uint64_t left = steps - version, made, wanted = 1 + draw(&random) % CALL;
        bool publish = draw(&random) % 2;
        int status = nablad_core_run(core, wanted < left ? wanted : left, samples, samples, factors, measured, records,
                                     squares, publish, patient ? 1e6 : 1e-4 * (draw(&random) % 20), &made);
        expect(status != REJECTED, "rejected");
        for (uint64_t number = 0; number < made; number++) {
            expect(records[number].cost_sum == expected_cost(version + number), "wrong cost");
            expect(records[number].samples == WORKERS * SAMPLES && records[number].correct == 3, "wrong counts");
        }
        version += made;
        if (draw(&random) % 16 == 0) {
            nablad_core_end(core);
            dawdle(&random);
            /* No two runs have the same number. Until the workers have left the old one, they may not see an update of
             * the new one: it waits for all of them. */
            begin(++run, version);
        } else if (status == DONE && !publish) {
            dawdle(&random);
            nablad_core_publish(core);
        }
    }
    nablad_core_end(core);
    give_order(ALL_DONE, 0);
    atomic_store(&quiet, true);
    for (size_t part = 0; part < WORKERS; part++)
        pthread_join(workers[part], NULL);
    pthread_join(interrupter, NULL);
    nablad_core_free(core);
    float *w = calloc(size, sizeof *w), *v = calloc(size, sizeof *v);
    if (!w || !v)
        abort();
    make_plain_steps(w, v, steps, factor);
    expect(!memcmp(w, weights, size * sizeof *w) && !memcmp(v, velocity, size * sizeof *v), "wrong numbers");
    free(w);
    free(v);
}

enum { MOST_ITEMS = 8 };

struct loop {
    _Atomic int done[MOST_ITEMS];
    size_t items;
};

static void count(void *context, size_t item, int thread)
{
    struct loop *loop = context;
    expect(item < loop->items && thread < 4, "an item of another loop");
    sched_yield(); /* or one thread had done all before another one wakes */
    atomic_fetch_add(&loop->done[item % MOST_ITEMS], 1);
}

/* Short loops one after the other, so that threads wake up when theirs is over: each item is done once. */
static void run_loops(int loops)
{
    struct nablad_pool *pool = nablad_pool_new(4);
    if (!pool)
        abort();
    uint32_t random = 3;
    for (int number = 0; number < loops; number++) {
        struct loop loop = {.items = 1 + draw(&random) % MOST_ITEMS};
        nablad_pool_run(pool, count, &loop, loop.items);
        for (size_t item = 0; item < MOST_ITEMS; item++)
            expect(atomic_load(&loop.done[item]) == (item < loop.items), "an item was not done once");
        if (number % 8 == 0)
            dawdle(&random);
    }
    nablad_pool_free(pool);
}

int main(void)
{
    run_loops(3000);
    train(37, 500, 0, 1);
    patient = true;
    train(37, 500, 0, 1);
    patient = false;
    train(37, 500, 50e-6, 1);
    train(MOST_SIZE, 4, 0, 3);
    return failures != 0;
}
