/* Sleep and wake-up between processes, and the clock. */
#define _GNU_SOURCE
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "step.h"

double nablad_now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

void nablad_futex_wait(const _Atomic uint32_t *word, uint32_t value, double seconds)
{
    if (!(seconds > 0))
        return;
    struct timespec timeout;
    timeout.tv_sec = (time_t)seconds;
    timeout.tv_nsec = (long)(1e9 * (seconds - (double)timeout.tv_sec));
    syscall(SYS_futex, word, FUTEX_WAIT, value, &timeout, NULL, 0);
}

void nablad_futex_wake(const _Atomic uint32_t *word) { syscall(SYS_futex, word, FUTEX_WAKE, 1 << 30, NULL, NULL, 0); }
