/* driver.c - runs a fuzz target:  fuzz_X [SECONDS [SEED]]    inputs until the time is over
 *                                 fuzz_X -i INPUT [SEED]      one input again, on standard output
 *                   fuzz_X FILE...              files as inputs
 * The inputs run in a child, whose number of the input in hand lies in shared memory: when it dies, the
 * parent says which input did it. */
#include "tests/fuzz/fuzz.h"

#include "common/base/error.h"
#include "common/base/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { SEEDS_MAX = 64, INPUT_MAX = 1 << 16, LEAK_EVERY = 4096 };

typedef struct {
    Str at[SEEDS_MAX];
    int n;
} Seeds;

static uint64_t next(uint64_t *state) /* splitmix64 */
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static size_t below(uint64_t *state, size_t n)
{
    return n ? next(state) % n : 0;
}

/* Puts `n` bytes in place of `cut` bytes at `at`. */
static void replace(Str *s, size_t at, size_t cut, const char *bytes, size_t n)
{
    Str b = {0};
    str_add_bytes(&b, s->s, at);
    str_add_bytes(&b, bytes, n);
    str_add_bytes(&b, s->s + at + cut, s->n - at - cut);
    str_free(s);
    *s = b;
}

/* The next of `stops` from `at` on; behind it, if those open a value. */
static size_t find_stop(const Str *s, size_t at, const char *stops)
{
    while (at < s->n && (!s->s[at] || !strchr(stops, s->s[at])))
        at++;
    return at + (at < s->n && *stops == ':');
}

static void change(Str *s, const Seeds *seeds, uint64_t *state)
{
    const size_t at = below(state, s->n + 1), rest = s->n - at;
    size_t n_words = 0;
    while (fuzz_words[n_words])
        n_words++;
    const char *word = fuzz_words[below(state, n_words)];
    const Str *other = &seeds->at[below(state, (size_t)seeds->n)];
    const size_t from = below(state, other->n + 1), take = below(state, other->n - from + 1);
    const char byte = (char)next(state);
    switch (below(state, 10)) {
    case 0:
        if (rest)
            s->s[at] ^= (char)(1 << below(state, 8));
        break;
    case 1:
        replace(s, at, rest ? 1 : 0, &byte, 1);
        break;
    case 2:
        replace(s, at, below(state, rest < 16 ? rest + 1 : 16), "", 0);
        break;
    case 3:
        replace(s, at, 0, word, strlen(word));
        break;
    case 4:
        replace(s, at, rest < strlen(word) ? rest : strlen(word), word, strlen(word));
        break;
    case 5:
        replace(s, at, below(state, rest + 1), other->s + from, take);
        break;
    case 6:
        replace(s, at, rest, "", 0);
        break;
    case 7:
        replace(s, at, 0, s->s + at, below(state, rest + 1));
        break;
    default: { /* what is a value in JSON becomes a word: most such inputs still parse */
        const size_t value = find_stop(s, at, ":[,");
        replace(s, value, find_stop(s, value, ",]}") - value, word, strlen(word));
        break;
    }
    }
}

static void make_input(Str *s, const Seeds *seeds, uint64_t seed, uint64_t i)
{
    uint64_t state = seed * 0x9e3779b97f4a7c15u + i;
    const Str *from = &seeds->at[below(&state, (size_t)seeds->n)];
    str_free(s);
    str_add_bytes(s, from->s, from->n);
    for (size_t k = below(&state, 6); k > 0; k--) {
        change(s, seeds, &state);
        if (s->n > INPUT_MAX)
            replace(s, INPUT_MAX, s->n - INPUT_MAX, "", 0);
    }
}

/* From memory of just that size, so that the address sanitizer sees a read behind the end. */
static void run_exact(const char *data, size_t n)
{
    uint8_t *exact = xmalloc(n);
    memcpy(exact, data, n);
    LLVMFuzzerTestOneInput(exact, n);
    free(exact);
}

/* Freed memory that the address sanitizer keeps from use: far more than one input frees, and little enough that it
 * stays in the caches (a third more inputs a second than with its own 256 MB). ASAN_OPTIONS wins. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "quarantine_size_mb=8";
}

/* The leak sanitizer's, where the build has it. */
int __lsan_do_recoverable_leak_check(void) __attribute__((weak));

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* What the first input needed for good (a memory file) may stay. */
typedef struct {
    int descriptor, mapped;
} Open;

static Open count_open(void)
{
    return (Open){fuzz_lowest_free_descriptor(), fuzz_mapped_files()};
}

static void check_leaks(const Open *before)
{
    CHECK(fuzz_mapped_files() == before->mapped, "a file stays mapped, of one of the last %d inputs", LEAK_EVERY);
    if (!__lsan_do_recoverable_leak_check || !__lsan_do_recoverable_leak_check())
        return;
    printf("it leaks, or one of the %d inputs before it does\n", LEAK_EVERY);
    fflush(stdout);
    _exit(1);
}

/* The inputs of `seconds`, by number in *at. */
static void run_child(const Seeds *seeds, double seconds, uint64_t seed, volatile uint64_t *at)
{
    Str s = {0};
    const double end = now() + seconds;
    run_exact(str_get(&seeds->at[0]), seeds->at[0].n);
    const Open before = count_open();
    for (*at = 0; now() < end; ++*at) {
        make_input(&s, seeds, seed, *at);
        run_exact(str_get(&s), s.n);
        CHECK(fuzz_lowest_free_descriptor() == before.descriptor, "a file stays open");
        if (*at % LEAK_EVERY == 0)
            check_leaks(&before);
    }
    check_leaks(&before);
    str_free(&s);
}

static double seconds_of(const struct timeval *t)
{
    return (double)t->tv_sec + 1e-6 * (double)t->tv_usec;
}

static int run_inputs(const Seeds *seeds, double seconds, uint64_t seed)
{
    volatile uint64_t *at =
        mmap(NULL, sizeof *at, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int status = 0;
    CHECK(at != MAP_FAILED, "no shared memory");
    const double started = now();
    const pid_t child = fork();
    if (child == 0) {
        run_child(seeds, seconds, seed, at);
        exit(0);
    }
    struct rusage used;
    CHECK(child > 0 && wait4(child, &status, 0, &used) == child, "no child");
    const bool good = WIFEXITED(status) && WEXITSTATUS(status) == 0;
    if (!good)
        printf("input %llu of seed %llu failed; again with: -i %llu %llu\n",
               (unsigned long long)*at, (unsigned long long)seed, (unsigned long long)*at,
               (unsigned long long)seed);
    const double cpu = seconds_of(&used.ru_utime) + seconds_of(&used.ru_stime);
    printf("%llu inputs of seed %llu in %.1f s, %.1f of them of the processor: %.0f a second\n", (unsigned long long)*at,
           (unsigned long long)seed, now() - started, cpu, (double)*at / (cpu + 1e-3));
    printf("%d passed, %d failed, 0 skipped\n", good, !good);
    return !good;
}

int main(int argc, char **argv)
{
    static Seeds seeds;
    int rc = 0;
    fuzz_folder(); /* before the child, so that it is removed even if that dies */
    while (seeds.n < SEEDS_MAX && fuzz_seed(seeds.n, &seeds.at[seeds.n]))
        seeds.n++;
    const bool one = argc > 2 && !strcmp(argv[1], "-i");
    char *end = NULL;
    const double seconds = argc > 1 ? strtod(argv[1], &end) : 1;
    if (one) {
        Str s = {0};
        make_input(&s, &seeds, argc > 3 ? strtoull(argv[3], NULL, 10) : 1,
                   strtoull(argv[2], NULL, 10));
        fwrite(s.s, 1, s.n, stdout);
        fflush(stdout);
        run_exact(str_get(&s), s.n);
        str_free(&s);
    } else if (argc > 1 && *end) {
        for (int i = 1; i < argc && rc >= 0; i++) {
            char *data;
            size_t n;
            if ((rc = file_read(argv[i], &data, &n)) < 0)
                fprintf(stderr, "%s\n", error_text());
            else
                run_exact(data, n), free(data);
        }
    } else {
        rc = run_inputs(&seeds, seconds, argc > 2 ? strtoull(argv[2], NULL, 10) : 1);
    }
    for (int k = 0; k < seeds.n; k++)
        str_free(&seeds.at[k]);
    fuzz_folder_remove();
    return rc < 0 ? -rc : rc;
}
