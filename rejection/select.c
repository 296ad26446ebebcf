/* select.c - see select.h. Tested by tests/unit/test_select.c: hand-made pools, and the order statistic
 * against the enumeration of all subsets. */
#include "rejection/select.h"

#include <stdlib.h>

/* Index of the largest score among candidates that pass; -1 = none. */
static int best_by(const Candidate *c, int n, bool by_safety, bool only_safe, double threshold)
{
    int best = -1;
    for (int i = 0; i < n; i++) {
        if (!c[i].finished || (only_safe && c[i].safety < threshold))
            continue;
        double x = by_safety ? c[i].safety : c[i].helpful;
        if (best < 0 || x > (by_safety ? c[best].safety : c[best].helpful))
            best = i;
    }
    return best;
}

int select_best(const Candidate *c, int n, bool tagged, bool has_safety, double threshold,
                AllUnsafe all_unsafe)
{
    if (!has_safety)
        return best_by(c, n, false, false, threshold);
    if (tagged)
        return best_by(c, n, true, false, threshold);
    int best = best_by(c, n, false, true, threshold);
    if (best < 0 && all_unsafe == ALL_UNSAFE_SAFEST)
        best = best_by(c, n, true, false, threshold);
    return best;
}

int select_random(const Candidate *c, int n, double u)
{
    int finished = 0;
    for (int i = 0; i < n; i++)
        finished += c[i].finished;
    int want = (int)(u * finished);
    for (int i = 0; i < n; i++) {
        if (c[i].finished && want-- == 0)
            return i;
    }
    return -1;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double select_expected_max(double *score, int M, int N)
{
    qsort(score, (size_t)M, sizeof *score, ascending);
    /* weight of the i-th smallest (1-based): C(i - 1, N - 1) / C(M, N); from i = M, where it is N / M,
     * down: w(i - 1) = w(i) * (i - N) / (i - 1) */
    double sum = 0, w = (double)N / M;
    for (int i = M; i >= N; i--) {
        sum += w * score[i - 1];
        if (i > 1)
            w *= (double)(i - N) / (i - 1);
    }
    return sum;
}

double select_median(double *score, int M)
{
    qsort(score, (size_t)M, sizeof *score, ascending);
    return M % 2 ? score[M / 2] : 0.5 * (score[M / 2 - 1] + score[M / 2]);
}
