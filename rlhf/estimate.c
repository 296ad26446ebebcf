/* estimate.c - see estimate.h. Tested by tests/unit/test_estimate.c. */
#include "rlhf/estimate.h"

#include <math.h>
#include <stdio.h>

double flops_per_token(const ModelConfig *c, double length, bool train)
{
    double C = (double)c->C, Q = (double)(c->H * c->D), G = (double)(c->K * c->D), F = (double)c->F;
    double weights = 2 * C * Q + 2 * C * G + 3 * C * F;
    double attention = length * Q; /* of one product: 2 Q per key, length / 2 keys */
    return (double)c->L * (train ? 6 * weights + 7 * attention : 2 * weights + 2 * attention);
}

double work_tokens(const Work *w, double answer)
{
    return w->kind == WORK_UPDATE ? 0 : w->tokens + w->answers * answer;
}

/* Seconds of a decoding step of n answers, `depth` tokens deep. */
static double step_seconds(const Rates *r, double n, double depth)
{
    double per = r->slots > 1 ? (r->step_full - r->step_one) / (r->slots - 1) : 0;
    double s = r->step_one + per * (n - 1) + n * (depth - r->depth) * r->kv_bytes * r->byte;
    return s > 0 ? s : 0;
}

static double decode_seconds(const Work *w, const Rates *r, double answer)
{
    if (w->answers <= 0 || w->calls <= 0)
        return 0;
    double prompt = w->sequences > 0 ? w->tokens / w->sequences : 0, depth = prompt + answer / 2;
    double per_call = w->answers / w->calls, waves = floor(per_call / w->slots);
    double rest = per_call - waves * w->slots, steps = waves * step_seconds(r, w->slots, depth);
    if (rest > 0)
        steps += step_seconds(r, rest, depth);
    return w->calls * answer * steps;
}

double work_seconds(const Work *w, const ModelConfig *c, const Rates *r, double answer)
{
    bool train = w->kind == WORK_TRAIN, decode = w->kind == WORK_DECODE;
    if (w->kind == WORK_UPDATE)
        return w->params * w->calls * r->update_param;
    double tokens = decode ? w->tokens : work_tokens(w, answer);
    double rows = w->scalar || decode ? 0 : w->rows + w->answers * answer;
    double length = w->sequences > 0 ? tokens / w->sequences : r->length;
    double stretch = flops_per_token(c, length, train) / flops_per_token(c, r->length, train);
    double s = tokens * stretch * (train ? r->train_token : r->forward_token) +
               rows * (train ? r->train_row : r->forward_row);
    return decode ? s + decode_seconds(w, r, answer) : s;
}

const char *seconds_text(char s[QUANTITY_TEXT], double x)
{
    if (x < 9.95)
        snprintf(s, QUANTITY_TEXT, "%.1f s", x);
    else if (x < 99.5)
        snprintf(s, QUANTITY_TEXT, "%.0f s", x);
    else if (x < 9.95 * 60)
        snprintf(s, QUANTITY_TEXT, "%.1f min", x / 60);
    else if (x < 99.5 * 60)
        snprintf(s, QUANTITY_TEXT, "%.0f min", x / 60);
    else if (x < 48 * 3600)
        snprintf(s, QUANTITY_TEXT, "%.1f h", x / 3600);
    else
        snprintf(s, QUANTITY_TEXT, "%.1f d", x / 86400);
    return s;
}

const char *bytes_text(char s[QUANTITY_TEXT], double x)
{
    static const char *const unit[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    int u = 0;
    for (; x >= 1024 && u < 4; u++)
        x /= 1024;
    snprintf(s, QUANTITY_TEXT, x >= 99.95 || !u ? "%.0f %s" : x >= 9.995 ? "%.1f %s" : "%.2f %s", x, unit[u]);
    return s;
}

const char *count_text(char s[QUANTITY_TEXT], double x)
{
    static const char *const unit[] = {"", " k", " M", " B", " T"};
    int u = 0;
    for (; x >= 999.5 && u < 4; u++)
        x /= 1000;
    snprintf(s, QUANTITY_TEXT, x >= 99.5 || !u ? "%.0f%s" : x >= 9.95 ? "%.1f%s" : "%.2f%s", x, unit[u]);
    return s;
}
