/* interval.c - see interval.h. */
#include "common/base/interval.h"

#include <math.h>
#include <stdlib.h>

static int by_size(const void *x, const void *y)
{
    double a = *(const double *)x, b = *(const double *)y;
    return (a > b) - (a < b);
}

/* Linear interpolation between order statistics. */
static double quantile(const double *sorted, int n, double q)
{
    double at = q * (n - 1);
    int i = (int)at;
    return i + 1 < n ? sorted[i] + (at - i) * (sorted[i + 1] - sorted[i]) : sorted[n - 1];
}

Interval interval_of_draws(double value, double *draw, int n)
{
    Interval v = {value, NAN, NAN};
    int kept = 0;
    for (int d = 0; d < n; d++) {
        if (!isnan(draw[d]))
            draw[kept++] = draw[d];
    }
    if (kept && !isnan(value)) {
        qsort(draw, (size_t)kept, sizeof *draw, by_size);
        v.low = quantile(draw, kept, .025);
        v.high = quantile(draw, kept, .975);
    }
    return v;
}

Interval interval_wilson(double hits, double n)
{
    const double z = 1.959963984540054, z2 = z * z;
    if (!(n > 0))
        return (Interval){NAN, NAN, NAN};
    double p = hits / n, centre = (p + z2 / (2 * n)) / (1 + z2 / n);
    double half = z / (1 + z2 / n) * sqrt(p * (1 - p) / n + z2 / (4 * n * n));
    return (Interval){p, centre - half, centre + half};
}

Interval interval_mean(const Interval *v, int n)
{
    double sum = 0, below = 0, above = 0;
    for (int i = 0; i < n; i++) {
        sum += v[i].value;
        below += (v[i].value - v[i].low) * (v[i].value - v[i].low);
        above += (v[i].high - v[i].value) * (v[i].high - v[i].value);
    }
    return (Interval){sum / n, (sum - sqrt(below)) / n, (sum + sqrt(above)) / n};
}

void interval_json(JsonWriter *w, const char *key, Interval v)
{
    jw_key(w, key);
    jw_object(w);
    jw_knum(w, "value", v.value);
    jw_knum(w, "low", v.low);
    jw_knum(w, "high", v.high);
    jw_object_end(w);
}

Interval interval_from_json(const Json *j)
{
    return (Interval){json_num(json_get(j, "value"), NAN), json_num(json_get(j, "low"), NAN),
                      json_num(json_get(j, "high"), NAN)};
}
