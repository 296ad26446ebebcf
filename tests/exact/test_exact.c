/* test_exact.c - runs random cases of every family and counts those with differences.
 *
 *   test_exact [-n CASES] [-t TOKENS] [-s SEED] [-f FAMILY] [-d f32|bf16] [-c CASE] [--planted]
 *
 * -n: of each family and dtype (4); -t: the sampler goes on until it has sampled as many tokens (0). -c: this
 * case alone, as a failure names it. A line a family ends with a hash of its results, which another
 * compiler or machine must print too: same.sh compares two builds. --planted: alone, every case gets a
 * wrong weight in its second way and passes when the difference is noticed; without it each family
 * tries a few of those after the others. */
#include "tests/exact/exact.h"

#include "common/base/hash.h"

#include <stdio.h>

typedef struct {
    uint64_t seed;
    int64_t n_cases, n_tokens;
    int only_case; /* -1: all */
    const char *only;
    const char *dtype; /* NULL: both */
    bool planted;
    int passed, failed, skipped;
} Session;

enum { PLANTED_TRIES = 2, SAID_MAX = 5 };

/* The case; true: no difference was seen. */
static bool run_case(const Session *s, int family, DType dtype, int number, bool planted, Case *c)
{
    *c = (Case){.seed = s->seed, .family = family, .number = number, .dtype = dtype, .planted = planted};
    c->rng = rng_make(s->seed, RNG_TEST, (uint32_t)family + 100, (uint64_t)number, 0);
    families[family].run(c);
    return !c->difference;
}

static void say_failure(const Session *s, const Case *c)
{
    const ModelConfig *m = &c->config;
    const char *name = families[c->family].name;
    printf("FAIL %s: %s\n     C %lld, F %lld, V %lld, L %lld, H %lld, K %lld, D %lld, %s; again: test_exact -s "
           "%llu -f %s -d %s -c %d\n",
           name, c->difference ? c->difference : "a planted fault was not noticed", (long long)m->C,
           (long long)m->F, (long long)m->V, (long long)m->L, (long long)m->H, (long long)m->K, (long long)m->D,
           m->head == HEAD_SCALAR ? "scalar head"
           : m->tied              ? "tied"
                                  : "untied",
           (unsigned long long)s->seed, name, dtype_name(c->dtype), c->number);
}

/* Cases [from, to) or more, until enough tokens are sampled. */
static void run_family(Session *s, int family, DType dtype)
{
    Case *c = xmalloc(sizeof *c);
    int64_t bad = 0, n = 0, bytes = 0, tokens = 0;
    bool sampler = strcmp(families[family].name, "sampler") == 0;
    uint64_t hash = 0;
    int first = s->only_case < 0 ? 0 : s->only_case;
    for (int i = first; n < s->n_cases || (sampler && tokens < s->n_tokens); i++, n++) {
        bool same = run_case(s, family, dtype, i, s->planted, c);
        if (same == s->planted && bad++ < SAID_MAX)
            say_failure(s, c);
        hash = hash64(&c->hash, sizeof c->hash, hash);
        bytes += c->compared;
        tokens += c->n_sampled;
        free(c->difference);
    }
    printf("%-8s %-4s %6lld cases, %lld %s, %lld values", families[family].name, dtype_name(dtype), (long long)n,
           (long long)bad, s->planted ? "not noticed" : "with differences", (long long)bytes / 4);
    printf(tokens ? ", %lld tokens" : "%.0lld", (long long)tokens);
    printf(", hash %016llx\n", (unsigned long long)hash);
    fflush(stdout);
    s->passed += bad == 0;
    s->failed += bad != 0;
    free(c);
}

/* A comparison that cannot fail is worse than none. */
static void run_planted(Session *s, int family, DType dtype)
{
    Case *c = xmalloc(sizeof *c);
    int missed = 0;
    for (int i = 0; i < PLANTED_TRIES; i++) {
        if (run_case(s, family, dtype, i, true, c)) {
            say_failure(s, c);
            missed++;
        }
        free(c->difference);
    }
    s->passed += missed == 0;
    s->failed += missed != 0;
    free(c);
}

/* A machine without some instructions compares fewer bodies, and says so. */
static void count_bodies(Session *s)
{
    for (CpuIsa isa = ISA_PLAIN; isa < ISA_COUNT; isa++) {
        Device *dev = NULL;
        if (device_open(&dev, &(DeviceOptions){"cpu", 1, isa}) < 0) {
            printf("skip bodies: %s\n", error_text());
            s->skipped++;
        }
        device_close(dev);
    }
}

static int usage(void)
{
    fprintf(stderr, "usage: test_exact [-n CASES] [-t TOKENS] [-s SEED] [-f FAMILY] [-d f32|bf16] [-c CASE] "
                    "[--planted]\nfamilies:\n");
    for (int i = 0; i < n_families; i++)
        fprintf(stderr, "  %-8s  %s\n", families[i].name, families[i].claim);
    return -ERR_USAGE;
}

static bool read_arguments(Session *s, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--planted") == 0) {
            s->planted = true;
            continue;
        }
        const char *value = argv[i][0] == '-' && argv[i][1] ? argv[i + 1] : NULL;
        if (!value || argv[i][2])
            return false;
        switch (argv[i++][1]) {
        case 'n':
            s->n_cases = atoll(value);
            break;
        case 't':
            s->n_tokens = atoll(value);
            break;
        case 's':
            s->seed = strtoull(value, NULL, 10);
            break;
        case 'f':
            s->only = value;
            break;
        case 'd':
            s->dtype = value;
            break;
        case 'c':
            s->only_case = atoi(value);
            s->n_cases = 1;
            break;
        default:
            return false;
        }
    }
    return s->n_cases > 0;
}

int main(int argc, char **argv)
{
    Session s = {.seed = 1, .n_cases = 4, .only_case = -1};
    if (!read_arguments(&s, argc, argv))
        return usage();
    for (int i = 0; i < 2 * n_families; i++) {
        int family = i / 2;
        DType dtype = i % 2 ? DTYPE_BF16 : DTYPE_F32;
        if ((s.only && strcmp(s.only, families[family].name) != 0) ||
            (s.dtype && strcmp(s.dtype, dtype_name(dtype)) != 0))
            continue;
        run_family(&s, family, dtype);
        if (!s.planted && s.only_case < 0)
            run_planted(&s, family, dtype);
    }
    if (s.passed + s.failed == 0)
        return usage();
    count_bodies(&s);
    printf("%d passed, %d failed, %d skipped\n", s.passed, s.failed, s.skipped);
    return s.failed > 0;
}
