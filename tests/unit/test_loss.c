/* test_loss.c - losses and their gradients against PyTorch (tests/golden/make_loss.py): ranking loss with every
 * margin, classification loss, PPO's clipped losses. */
#include "common/base/json.h"
#include "common/runtime/device.h"
#include "common/runtime/ops.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { ROOM = 32 };

typedef struct {
    Device *dev;
    Json *all;
} World;

static int setup(void **state)
{
    World *w = calloc(1, sizeof *w);
    *state = w;
    if (device_open(&w->dev, &(DeviceOptions){.name = "cpu", .threads = 1}) < 0)
        return -1;
    return json_read_file(&w->all, "tests/golden/loss.json");
}

static int teardown(void **state)
{
    World *w = *state;
    json_free(w->all);
    device_close(w->dev);
    free(w);
    return 0;
}

/* A tensor over `data`, filled with the numbers of `key`; key NULL: `n` times `value`. */
static Tensor make(const World *w, float *data, const Json *j, const char *key, int n, float value)
{
    const Json *list = key ? json_get(j, key) : NULL;
    for (int i = 0; i < n; i++)
        data[i] = key ? (float)json_num(json_at(list, (size_t)i), NAN) : value;
    return tensor_make1(data, w->dev, DTYPE_F32, n);
}

/* f32 arithmetic on values of order one: 2e-6 of the largest. */
static void compare(const float *ours, const Json *list)
{
    double largest = 1e-30;
    assert_true(json_len(list) > 0);
    for (size_t i = 0; i < json_len(list); i++)
        largest = fmax(largest, fabs(json_num(json_at(list, i), NAN)));
    for (size_t i = 0; i < json_len(list); i++)
        assert_true(fabs((double)ours[i] - json_num(json_at(list, i), NAN)) <= 2e-6 * largest);
}

static void ranking_loss_with_each_margin(void **state)
{
    const World *w = *state;
    const char *const kinds[] = {"rank_none", "rank_small", "rank_large"};
    for (int k = 0; k < 3; k++) {
        const Json *j = json_get(w->all, kinds[k]);
        float s[ROOM], m[ROOM], wt[ROOM], l[ROOM], d[ROOM];
        int n = (int)json_len(json_get(j, "scores"));
        Tensor scores = make(w, s, j, "scores", n, 0), margin = make(w, m, j, "margin", n / 2, 0);
        Tensor weight = make(w, wt, NULL, NULL, n / 2, 0.125f), loss = make(w, l, NULL, NULL, n / 2, 0);
        Tensor grad = make(w, d, NULL, NULL, n, 0);
        op_rank_loss(&loss, &grad, &scores, &margin, &weight);
        compare(l, json_get(j, "loss"));
        compare(d, json_get(j, "grad"));
    }
}

static void classification_loss(void **state)
{
    const World *w = *state;
    const Json *j = json_get(w->all, "bce");
    float s[ROOM], y[ROOM], wt[ROOM], l[ROOM], d[ROOM];
    int n = (int)json_len(json_get(j, "scores"));
    Tensor scores = make(w, s, j, "scores", n, 0), labels = make(w, y, j, "labels", n, 0);
    Tensor weight = make(w, wt, NULL, NULL, n, 0.125f), loss = make(w, l, NULL, NULL, n, 0);
    Tensor grad = make(w, d, NULL, NULL, n, 0);
    op_bce_loss(&loss, &grad, &scores, &labels, &weight);
    compare(l, json_get(j, "loss"));
    compare(d, json_get(j, "grad"));
}

static void policy_loss(void **state)
{
    const World *w = *state;
    const Json *j = json_get(w->all, "policy");
    float lp[ROOM], o[ROOM], a[ROOM], wt[ROOM], l[ROOM], d[ROOM], r[ROOM];
    int n = (int)json_len(json_get(j, "logp"));
    Tensor logp = make(w, lp, j, "logp", n, 0), old = make(w, o, j, "old", n, 0), adv = make(w, a, j, "adv", n, 0);
    Tensor weight = make(w, wt, NULL, NULL, n, 1 / 12.0f), loss = make(w, l, NULL, NULL, n, 0);
    Tensor grad = make(w, d, NULL, NULL, n, 0), ratio = make(w, r, NULL, NULL, n, 0);
    op_policy_loss(&loss, &grad, &ratio, &logp, &old, &adv, &weight, 0.2);
    compare(r, json_get(j, "ratio"));
    compare(l, json_get(j, "loss"));
    compare(d, json_get(j, "grad"));
}

static void value_loss(void **state)
{
    const World *w = *state;
    const Json *j = json_get(w->all, "value");
    float v[ROOM], o[ROOM], t[ROOM], wt[ROOM], l[ROOM], d[ROOM];
    int n = (int)json_len(json_get(j, "value"));
    Tensor value = make(w, v, j, "value", n, 0), old = make(w, o, j, "old", n, 0), ret = make(w, t, j, "ret", n, 0);
    Tensor weight = make(w, wt, NULL, NULL, n, 1 / 12.0f), loss = make(w, l, NULL, NULL, n, 0);
    Tensor grad = make(w, d, NULL, NULL, n, 0);
    op_value_loss(&loss, &grad, &value, &old, &ret, &weight, 0.2);
    compare(l, json_get(j, "loss"));
    compare(d, json_get(j, "grad"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranking_loss_with_each_margin),
        cmocka_unit_test(classification_loss),
        cmocka_unit_test(policy_loss),
        cmocka_unit_test(value_loss),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
