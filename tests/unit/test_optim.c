/* test_optim.c - an optimizer over a tiny table against AdamW in double, clipping, and what a gradient
 * that is not finite leaves behind: nothing. */
#include "common/train/optim.h"

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/runtime/device.h"
#include "common/train/checkpoint.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

typedef struct {
    DType dtype;
    Device *dev;
    Arena arena;
    ParamTable table;
    ParamSet params;
    Grads grads;
    OptimConfig config;
    Optim o;
} World;

static void build(World *w)
{
    params_alloc(&w->params, &w->table, &w->arena, "policy", false);
    grads_alloc(&w->grads, &w->table, &w->arena);
    optim_alloc(&w->o, &w->config, &w->params, &w->grads, &w->arena);
}

static int open_world(void **state, bool tied)
{
    World *w = xcalloc(1, sizeof *w);
    const ModelConfig c = {.architecture = "Llama", .C = 8, .F = 12, .V = 40, .L = 1, .H = 2, .K = 1, .D = 4,
                           .norm_eps = 1e-5, .rope_theta = 1e4, .max_position = 64, .tied = tied, .bos = 1,
                           .pad = -1};
    w->config = (OptimConfig){.learning_rate = 1e-2, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-5,
                              .weight_decay = 0.1, .max_grad_norm = 1};
    assert_int_equal(device_open(&w->dev, &(DeviceOptions){.name = "cpu", .threads = 1}), 0);
    param_table_init(&w->table, &c, w->dtype, false);
    arena_init(&w->arena, w->dev, ARENA_DEVICE, "all");
    build(w);
    assert_int_equal(arena_commit(&w->arena), 0);
    build(w);
    params_init_random(&w->params, 7);
    grads_zero(&w->grads);
    *state = w;
    return 0;
}

static int setup(void **state)
{
    return open_world(state, false);
}

static int setup_tied(void **state)
{
    return open_world(state, true);
}

static int teardown(void **state)
{
    World *w = *state;
    optim_free(&w->o);
    grads_free(&w->grads);
    params_free(&w->params);
    param_table_free(&w->table);
    arena_free(&w->arena);
    device_close(w->dev);
    free(w);
    return 0;
}

/* Gradient of slot k of parameter i in update u: some value, the same for every run. */
static float some(int i, int64_t k, int u)
{
    return (float)(sin(1.0 + i + 0.37 * (double)k) * 0.01 * (u + 1));
}

/* Fills every gradient; storage lanes that belong to no element stay zero. */
static double fill(World *w, int u)
{
    double sum = 0;
    for (int i = 0; i < w->table.n; i++) {
        float *g = w->grads.g[i].data;
        const float *x = w->params.w[i].data;
        for (int64_t k = 0; k < tensor_slots(&w->grads.g[i]); k++) {
            g[k] = x[k] == 0 ? 0 : some(i, k, u);
            sum += (double)g[k] * (double)g[k];
        }
    }
    return sqrt(sum);
}

/* Three updates of every slot, with PyTorch's formula in double (float storage between updates). */
static void three_updates_are_adamw(void **state)
{
    World *w = *state;
    const ParamTable *t = &w->table;
    const char *bad;
    double **x = xcalloc((size_t)t->n, sizeof *x);
    bool any_clip = false;
    for (int i = 0; i < t->n; i++) {
        int64_t n = tensor_slots(&w->params.w[i]);
        const float *p = w->params.w[i].data;
        double lr = 1e-2, scale[3];
        x[i] = xcalloc((size_t)n, sizeof **x);
        for (int u = 0; u < 3; u++) {
            double norm = fill(w, u);
            scale[u] = norm > 1 ? 1 / (norm + 1e-6) : 1;
            any_clip |= norm > 1;
        }
        for (int64_t k = 0; k < n; k++) {
            double v = (double)p[k], m1 = 0, m2 = 0;
            for (int u = 0; u < 3 && p[k] != 0; u++) {
                double g = (double)some(i, k, u) * scale[u];
                m1 = 0.9 * m1 + 0.1 * g;
                m2 = 0.95 * m2 + 0.05 * g * g;
                v -= lr * (t->def[i].decay ? 0.1 : 0) * v;
                v -= lr * (m1 / (1 - pow(0.9, u + 1))) / (sqrt(m2 / (1 - pow(0.95, u + 1))) + 1e-5);
            }
            x[i][k] = v;
        }
    }
    for (int u = 0; u < 3; u++) {
        double want = fill(w, u), norm = optim_step(&w->o, 1e-2, &bad);
        assert_null(bad);
        assert_true(fabs(norm - want) < 1e-9 * want);
    }
    assert_false(any_clip); /* the norms are about 0.1, 0.2, 0.3 */
    for (int i = 0; i < t->n; i++) {
        const float *p = w->params.w[i].data, *g = w->grads.g[i].data;
        for (int64_t k = 0; k < tensor_slots(&w->params.w[i]); k++) {
            assert_true(fabs((double)p[k] - x[i][k]) < 1e-6);
            assert_true(g[k] == 0);
        }
        free(x[i]);
    }
    free(x);
    assert_int_equal(w->o.step, 3);
}

/* A gradient 1000 times as large moves the weights of a first update all the same when both are clipped
 * to the same norm: only the direction is left. */
static void clipping_leaves_the_direction(void **state)
{
    World *w = *state;
    const char *bad;
    float *p = w->params.w[w->table.embed].data, *g = w->grads.g[w->table.embed].data, start = p[3];
    w->config.max_grad_norm = 1e-3;
    w->config.weight_decay = 0;
    g[3] = 3;
    g[4] = 4;
    assert_true(fabs(optim_step(&w->o, 1e-2, &bad) - 5) < 1e-12);
    /* clipped: g = (3, 4) * 1e-3 / 5.000001 = (6e-4, 8e-4); m / (1 - b1) = g, sqrt(v / (1 - b2)) = |g|:
     * the step is lr * g / (|g| + 1e-5) = 1e-2 * 6e-4 / 6.1e-4 */
    assert_true(fabs((double)(start - p[3]) - 1e-2 * 6e-4 / 6.1e-4) < 1e-6);
}

static size_t copy_tensor(unsigned char *out, const Tensor *t)
{
    memcpy(out, t->data, tensor_bytes(t));
    return tensor_bytes(t);
}

/* Weights, gradients and moments one after another; returns the number of bytes. */
static size_t snapshot(const World *w, unsigned char *out)
{
    size_t n = 0;
    for (int i = 0; i < w->table.n; i++) {
        n += copy_tensor(out + n, &w->params.w[i]);
        n += copy_tensor(out + n, &w->grads.g[i]);
        n += copy_tensor(out + n, &w->o.m[i]);
        n += copy_tensor(out + n, &w->o.v[i]);
    }
    return n;
}

static void a_bad_gradient_changes_nothing(void **state)
{
    World *w = *state;
    const char *bad;
    int victim = param_layer(&w->table, 0, P_UP);
    fill(w, 0);
    assert_true(isfinite(optim_step(&w->o, 1e-2, &bad)));
    unsigned char *before = xmalloc(w->arena.used), *after = xmalloc(w->arena.used);
    for (int k = 0; k < 2; k++) {
        size_t bytes = snapshot(w, before);
        fill(w, 1);
        ((float *)w->grads.g[victim].data)[5] = k ? INFINITY : NAN;
        assert_false(isfinite(optim_step(&w->o, 1e-2, &bad)));
        assert_string_equal(bad, "model.layers.0.mlp.up_proj.weight");
        assert_int_equal(w->o.skipped, k + 1);
        assert_int_equal(snapshot(w, after), bytes); /* gradients are zero again */
        assert_memory_equal(before, after, bytes);
    }
    assert_int_equal(w->o.step, 1);
    free(before);
    free(after);
}

static void ten_in_a_row_end_the_run(void **state)
{
    World *w = *state;
    const char *bad;
    for (int k = 0; k < 9; k++) {
        optim_drop(&w->o);
        assert_int_equal(optim_check(&w->o, k + 1, "the loss"), 0);
    }
    fill(w, 0);
    optim_step(&w->o, 1e-2, &bad);
    assert_int_equal(optim_check(&w->o, 10, bad), 0);
    for (int k = 0; k < 9; k++) {
        optim_drop(&w->o);
        assert_int_equal(optim_check(&w->o, k + 11, "the loss"), 0);
    }
    optim_drop(&w->o);
    assert_int_equal(optim_check(&w->o, 20, "the loss"), ERR_DIVERGED);
    assert_non_null(strstr(error_text(), "the loss"));
    assert_int_equal(w->o.skipped, 19);
}

/* Tied: the head's and the embedding's gradients are one; the norm counts their sum once. */
static void tied_weights_get_one_update(void **state)
{
    World *w = *state;
    const char *bad;
    float *embed = w->grads.g[w->table.embed].data, *head = w->grads.g[w->table.head].data;
    embed[0] = 1; /* row 0, column 0 in both layouts */
    head[0] = 2;
    assert_true(fabs(optim_step(&w->o, 1e-2, &bad) - 3) < 1e-12);
    assert_null(bad);
}

/* Two updates, a checkpoint, two more; and the same two from the checkpoint in a new process: the same
 * bits, which needs moments and step. */
static void a_checkpoint_holds_all_of_it(void **state)
{
    World *w = *state;
    const char *bad;
    char dir[] = "/tmp/test_optim.XXXXXX";
    BlobList l = {0};
    assert_non_null(mkdtemp(dir));
    blob_add_params(&l, "policy", &w->params);
    blob_add_optim(&l, "policy", &w->o);
    for (int u = 0; u < 4; u++) {
        if (u == 2)
            assert_int_equal(checkpoint_save(dir, 2, &l, "seed: 1\n"), 0);
        fill(w, u);
        optim_step(&w->o, 1e-2, &bad);
    }
    unsigned char *want = xmalloc(w->arena.used), *got = xmalloc(w->arena.used);
    size_t bytes = snapshot(w, want);
    for (int i = 0; i < w->table.n; i++) {
        Tensor *const all[] = {&w->params.w[i], &w->o.m[i], &w->o.v[i]};
        for (int k = 0; k < 3; k++)
            memset(all[k]->data, 0, tensor_bytes(all[k]));
    }
    w->o.step = w->o.skipped = w->o.in_row = 0;
    assert_int_equal(checkpoint_load(dir, 2, &l), 0);
    assert_int_equal(w->o.step, 2);
    for (int u = 2; u < 4; u++) {
        fill(w, u);
        optim_step(&w->o, 1e-2, &bad);
    }
    assert_int_equal(snapshot(w, got), bytes);
    assert_memory_equal(want, got, bytes);
    free(got);
    free(want);
    blob_list_free(&l);
    assert_int_equal(dir_remove(dir), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(three_updates_are_adamw, setup, teardown),
        cmocka_unit_test_setup_teardown(clipping_leaves_the_direction, setup, teardown),
        cmocka_unit_test_setup_teardown(a_bad_gradient_changes_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(ten_in_a_row_end_the_run, setup, teardown),
        cmocka_unit_test_setup_teardown(tied_weights_get_one_update, setup_tied, teardown),
        cmocka_unit_test_setup_teardown(a_checkpoint_holds_all_of_it, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
