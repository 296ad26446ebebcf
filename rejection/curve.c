/* curve.c - see curve.h. Tested by tests/unit/test_curve.c. */
#include "rejection/curve.h"

#include "rejection/select.h"

#include <math.h>

void curve_add(Curve *c, double *score, int k, double floor)
{
    for (int i = 0; i < k; i++) {
        if (isnan(score[i])) {
            c->unfinished++;
            score[i] = floor;
        }
    }
    for (int n = 1; n <= k && n <= CURVE_MAX; n++)
        c->max[n - 1] += select_expected_max(score, k, n);
    c->best += select_expected_max(score, k, k);
    c->median += select_median(score, k);
    c->answers += k;
    c->prompts++;
}

double curve_best(const Curve *c)
{
    return c->prompts ? c->best / (double)c->prompts : NAN;
}

void curve_write(const Curve *c, int k, JsonWriter *w)
{
    double n = c->prompts ? (double)c->prompts : NAN;
    jw_object(w);
    jw_kint(w, "prompts", c->prompts);
    jw_knum(w, "unfinished", c->answers ? (double)c->unfinished / (double)c->answers : NAN);
    jw_knum(w, "median", c->median / n);
    jw_knum(w, "best_of_k", c->best / n);
    jw_key(w, "max_of_n");
    jw_array(w);
    for (int i = 0; i < k && i < CURVE_MAX && c->prompts; i++)
        jw_num(w, c->max[i] / n);
    jw_array_end(w);
    jw_object_end(w);
}

int curve_highest(const Curve *c, int n, int stride)
{
    int best = -1;
    for (int i = 0; i < n; i++) {
        if (c[i * stride].prompts && (best < 0 || curve_best(&c[i * stride]) > curve_best(&c[best * stride])))
            best = i;
    }
    return best;
}
