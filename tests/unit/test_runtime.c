/* test_runtime.c - tensors, arenas, devices, the team, the world of one, and the arithmetic of
 * kmath.h. The ops themselves are tested by tests/ops. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/base/error.h"
#include "common/runtime/arena.h"
#include "common/runtime/comm/comm.h"
#include "common/runtime/cpu/kmath.h"
#include "common/runtime/device.h"
#include "common/runtime/ops.h"
#include "common/runtime/thread.h"

#include <math.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static Device *open_cpu(int threads)
{
    Device *dev;
    assert_int_equal(device_open(&dev, &(DeviceOptions){"cpu", threads, ISA_AUTO}), 0);
    return dev;
}

/* ---- tensors ------------------------------------------------------------------------------------
 */

static void tensor_sizes(void **state)
{
    (void)state;
    Tensor panel = {
        .dtype = DTYPE_F32, .layout = LAYOUT_PANEL, .n_dims = 2, .dim = {33, 7}, .stride = 7};
    assert_int_equal(tensor_len(&panel), 33 * 7);
    assert_int_equal(tensor_slots(&panel), 64 * 7); /* two panels of 32 lanes */
    assert_int_equal(tensor_bytes(&panel), 64 * 7 * 4);
    Tensor rows = tensor_make2(NULL, NULL, DTYPE_BF16, 5, 6);
    assert_int_equal(tensor_bytes(&rows), 60);
    rows.stride = 10;
    assert_int_equal(tensor_slots(&rows), 4 * 10 + 6); /* the last row has no gap after it */
    assert_string_equal(tensor_text(&rows), "bf16 rows (5, 6) stride 10");
    assert_string_equal(tensor_text(&panel), "f32 panel (33, 7)");
}

static void tensor_views(void **state)
{
    (void)state;
    float x[24];
    Tensor t = tensor_make2(x, NULL, DTYPE_F32, 6, 4);
    Tensor s = tensor_slice(&t, 2, 3);
    assert_ptr_equal(s.data, x + 8);
    assert_int_equal(s.dim[0], 3);
    Tensor v = tensor_view2(&t, 3, 8);
    assert_int_equal(v.stride, 8);
    Tensor one = tensor_make1(x, NULL, DTYPE_F32, 24), part = tensor_slice(&one, 5, 2);
    assert_ptr_equal(part.data, x + 5);
    assert_true(tensor_same_shape(&t, &t));
    assert_false(tensor_same_shape(&t, &v));
}

/* ---- arenas
 * --------------------------------------------------------------------------------------- */

static void build(Arena *a, Tensor *t)
{
    t[0] = arena_rows2(a, DTYPE_F32, 3, 5);
    size_t mark = arena_mark(a);
    t[1] = arena_panel(a, DTYPE_F32, 33, 100);
    arena_reset(a, mark);
    t[2] = arena_rows1(a, DTYPE_F64, 7);
}

static void arena_plan_is_what_is_used(void **state)
{
    (void)state;
    Device *dev = open_cpu(1);
    Arena a;
    Tensor t[3];
    arena_init(&a, dev, ARENA_DEVICE, "weights");
    build(&a, t);
    assert_null(t[0].data);
    assert_null(t[1].data);
    /* 60 bytes -> 256; the panel 64 * 100 * 4 = 25600 = 100 * 256, gone again before the third */
    assert_int_equal(arena_planned(&a), 256 + 25600);
    assert_int_equal(arena_commit(&a), 0);
    build(&a, t);
    assert_int_equal(arena_high(&a), arena_planned(&a));
    assert_int_equal((uintptr_t)t[0].data % ARENA_ALIGN, 0);
    assert_ptr_equal(t[1].data, t[2].data); /* the reset gave the place back */
    assert_true(((float *)t[0].data)[14] == 0);
    arena_free(&a);
    arena_free(&a);
    device_close(dev);
}

static ArenaShare build_parts(Arena *a, Tensor *t)
{
    t[0] = arena_rows1(a, DTYPE_F32, 64);
    ArenaShare s = arena_share(a);
    arena_share_part(&s, "one");
    t[1] = arena_rows1(a, DTYPE_F32, 65);
    t[2] = arena_rows1(a, DTYPE_F32, 1);
    arena_share_part(&s, "other");
    t[3] = arena_rows1(a, DTYPE_F32, 64);
    arena_share_end(&s);
    t[4] = arena_rows1(a, DTYPE_F32, 64);
    return s;
}

static void arena_parts_share_bytes(void **state)
{
    (void)state;
    Device *dev = open_cpu(1);
    Arena a;
    Tensor t[5];
    arena_init(&a, dev, ARENA_DEVICE, "shared");
    build_parts(&a, t);
    assert_int_equal(arena_planned(&a), 256 + (512 + 256) + 256); /* the larger part alone */
    assert_int_equal(arena_commit(&a), 0);
    ArenaShare s = build_parts(&a, t);
    assert_int_equal(arena_high(&a), arena_planned(&a));
    assert_int_equal(s.n, 2);
    assert_string_equal(s.part[1].name, "other");
    assert_int_equal(s.part[0].bytes, 768);
    assert_int_equal(s.part[1].bytes, 256);
    assert_ptr_equal(t[3].data, t[1].data);
    assert_ptr_equal(t[4].data, (char *)t[1].data + 768);
    /* both may be written, under AddressSanitizer too */
    memset(t[1].data, 1, tensor_bytes(&t[1]));
    memset(t[2].data, 2, tensor_bytes(&t[2]));
    memset(t[3].data, 3, tensor_bytes(&t[3]));
    assert_int_equal(*(unsigned char *)t[2].data, 2);
    arena_free(&a);
    device_close(dev);
}

static void arena_of_huge_pages_is_aligned(void **state)
{
    (void)state;
    Device *dev = open_cpu(1);
    Arena a;
    arena_init(&a, dev, ARENA_HOST, "big");
    assert_null(arena_bytes(&a, (5 << 20) + 1));
    assert_int_equal(arena_commit(&a), 0);
    unsigned char *p = arena_bytes(&a, (5 << 20) + 1);
    assert_int_equal((uintptr_t)p % (2 << 20), 0);
    p[5 << 20] = 1;
    arena_free(&a);
    device_close(dev);
}

/* Runs fn in a child and returns whether it died of a CHECK. */
static bool dies(void (*fn)(void))
{
    pid_t pid = fork();
    if (pid == 0) {
        fclose(stderr);
        fn();
        _exit(0);
    }
    int status;
    waitpid(pid, &status, 0);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

static void ask_for_more_than_planned(void)
{
    Arena a;
    arena_init(&a, open_cpu(1), ARENA_DEVICE, "plan");
    arena_rows1(&a, DTYPE_F32, 64);
    arena_commit(&a);
    arena_rows1(&a, DTYPE_F32, 65);
}

static void wrong_shape(void)
{
    Device *dev = open_cpu(1);
    float x[8] = {0}, y[8] = {0};
    Tensor a = tensor_make2(x, dev, DTYPE_F32, 2, 4), b = tensor_make2(y, dev, DTYPE_F32, 4, 2);
    op_add(&a, &a, &b);
}

static void id_out_of_range(void)
{
    Device *dev = open_cpu(1);
    float w[8] = {0}, y[4];
    int32_t id = 2;
    Tensor tw = tensor_make2(w, dev, DTYPE_F32, 2, 4), ty = tensor_make2(y, dev, DTYPE_F32, 1, 4);
    Tensor ids = tensor_make1(&id, dev, DTYPE_I32, 1);
    op_embedding(&ty, &ids, &tw);
}

/* Copies among 4 pages of one head of one channel. */
static void copy_pages(int32_t src0, int32_t dst0, int32_t src1, int32_t dst1)
{
    float k[4 * KV_TILE] = {0}, v[4 * KV_TILE] = {0};
    int32_t pair[4] = {src0, dst0, src1, dst1};
    Tensor tk = {.data = k, .dev = open_cpu(1), .dtype = DTYPE_F32, .layout = LAYOUT_KV_PAGE,
                 .n_dims = 4, .dim = {4, 1, 1, KV_TILE}};
    Tensor tv = tk, pairs = tensor_make2(pair, tk.dev, DTYPE_I32, 2, 2);
    tv.data = v;
    tv.dim[2] = KV_TILE;
    tv.dim[3] = 1;
    op_kv_copy(&tk, &tv, &pairs);
}

static void page_written_twice(void)
{
    copy_pages(0, 2, 1, 2);
}

static void page_read_and_written(void)
{
    copy_pages(0, 2, 2, 3);
}

static void page_out_of_range(void)
{
    copy_pages(0, 2, 0, 4);
}

/* Products of bf16 rows are a card's; one of op 0..2, and with f32 rows instead, which nobody has. */
static void multiply_rows(int op, DType dtype)
{
    Device *dev = open_cpu(1);
    float a[8] = {0}, b[8] = {0}, c[8] = {0};
    Tensor x = tensor_make2(a, dev, DTYPE_F32, 2, 2), w = tensor_make2(b, dev, dtype, 2, 2);
    Tensor y = tensor_make2(c, dev, DTYPE_F32, 2, 2);
    if (op == 0)
        op_linear(&y, &x, &w, false);
    else if (op == 1)
        op_linear_dx(&y, &x, &w, false);
    else
        op_linear_dw(&y, &x, &w, DTYPE_BF16, false);
}

static void rows_of_bf16(void)
{
    multiply_rows(0, DTYPE_BF16);
}

static void rows_of_f32(void)
{
    multiply_rows(0, DTYPE_F32);
}

static void rows_back(void)
{
    multiply_rows(1, DTYPE_BF16);
}

static void rows_of_a_gradient(void)
{
    multiply_rows(2, DTYPE_F32);
}

static void nothing_wrong(void)
{
    copy_pages(0, 2, 0, 3);
}

static void our_mistakes_abort(void **state)
{
    (void)state;
    assert_true(dies(ask_for_more_than_planned));
    assert_true(dies(wrong_shape));
    assert_true(dies(id_out_of_range));
    assert_true(dies(page_written_twice));
    assert_true(dies(page_read_and_written));
    assert_true(dies(page_out_of_range));
    assert_true(dies(rows_of_bf16));
    assert_true(dies(rows_of_f32));
    assert_true(dies(rows_back));
    assert_true(dies(rows_of_a_gradient));
    assert_false(dies(nothing_wrong));
}

static void plan_that_does_not_fit_is_refused(void **state)
{
    (void)state;
    Device *dev = open_cpu(1);
    Arena a, b;
    MemoryPlan p = {0};
    arena_init(&a, dev, ARENA_DEVICE, "weights");
    arena_init(&b, dev, ARENA_HOST, "rollout");
    memory_plan_add(&p, &a);
    memory_plan_add(&p, &b);
    arena_rows1(&a, DTYPE_U8, 1000);
    arena_rows1(&b, DTYPE_U8, (int64_t)device_memory_bytes(dev));
    assert_int_equal(memory_plan_commit(&p, "lower train.micro_tokens"), ERR_UNAVAILABLE);
    assert_non_null(strstr(error_text(), "lower train.micro_tokens"));
    assert_non_null(strstr(error_text(), "rollout"));
    assert_null(a.base);
    arena_free(&b);

    arena_init(&b, dev, ARENA_HOST, "rollout");
    arena_rows1(&b, DTYPE_U8, 5000);
    assert_int_equal(memory_plan_commit(&p, NULL), 0);
    arena_rows1(&a, DTYPE_U8, 1000);
    arena_rows1(&b, DTYPE_U8, 5000);
    memory_plan_verify(&p);
    arena_free(&a);
    arena_free(&b);
    device_close(dev);
}

/* ---- devices
 * ---------------------------------------------------------------------------------------- */

static int open_named(const char *name, int threads, const char *word)
{
    Device *dev;
    int rc = device_open(&dev, &(DeviceOptions){name, threads, ISA_AUTO});
    if (rc < 0)
        assert_non_null(strstr(error_text(), word));
    device_close(dev);
    return rc;
}

static void device_names(void **state)
{
    (void)state;
    assert_int_equal(open_named("auto", 1, ""), 0);
    assert_int_equal(open_named("cpu", 2, ""), 0);
    assert_int_equal(open_named("cuda:9999", 1, "cuda:9999"), ERR_UNAVAILABLE);
    assert_int_equal(open_named("cuda:", 1, "cuda:N"), ERR_CONFIG);
    assert_int_equal(open_named("gpu", 1, "'gpu'"), ERR_CONFIG);
    assert_int_equal(open_named("cpu", -1, "threads"), ERR_CONFIG);
    device_close(NULL);
}

static void device_scratch_grows_and_is_counted(void **state)
{
    (void)state;
    Device *dev = open_cpu(2);
    assert_int_equal(device_scratch_bytes(dev), 0);
    void *p = device_scratch(dev, 0, 1000);
    assert_int_equal((uintptr_t)p % 64, 0);
    assert_ptr_equal(device_scratch(dev, 0, 2000), p); /* within the 64 KiB unit */
    device_scratch(dev, 1, 70000);
    assert_int_equal(device_scratch_bytes(dev), (64 + 128) << 10);
    device_close(dev);
}

/* ---- the team
 * ------------------------------------------------------------------------------------------ */

static void ranges_cover_everything_once(void **state)
{
    (void)state;
    for (int64_t n = 0; n < 70; n++)
        for (int parts = 1; parts < 9; parts++)
            for (int64_t block = 1; block < 20; block += 6) {
                int64_t at = 0, least = INT64_MAX, most = 0;
                for (int p = 0; p < parts; p++) {
                    int64_t from, to;
                    part_range(n, block, p, parts, &from, &to);
                    assert_int_equal(from, at);
                    assert_true(to == n || to % block == 0);
                    int64_t blocks = (to - from + block - 1) / block;
                    least = blocks < least ? blocks : least;
                    most = blocks > most ? blocks : most;
                    at = to;
                }
                assert_int_equal(at, n);
                assert_true(most - least <= 1);
            }
}

typedef struct {
    atomic_int calls[8];
    int n_parts;
} Count;

static void count_part(int part, int n_parts, void *ctx)
{
    Count *c = ctx;
    if (n_parts == c->n_parts)
        atomic_fetch_add(&c->calls[part], 1);
}

static void every_part_runs_once_per_call(void **state)
{
    (void)state;
    for (int n = 1; n <= 5; n += 2) { /* 5 is more than many machines have: no spin */
        Team *t = team_open(n);
        assert_int_equal(team_size(t), n);
        Count c = {.n_parts = n};
        for (int i = 1; i <= 2000; i++) {
            cpu_for(t, count_part, &c);
            if (i % 500 == 0)
                usleep(1000); /* long enough for everyone to fall asleep */
            for (int p = 0; p < n; p++)
                assert_int_equal(atomic_load(&c.calls[p]), i);
        }
        team_close(t);
    }
    team_close(NULL);
}

/* ---- arithmetic
 * ------------------------------------------------------------------------------------------ */

/* Distance of y from the exact value in units of y's last place (that of the value's binade). */
static double ulps(float y, double exact)
{
    int e;
    frexp(exact, &e);
    return fabs((double)y - exact) / ldexp(1, (e < -125 ? -125 : e) - 24);
}

static void exp_and_log_are_within_one_ulp(void **state)
{
    (void)state;
    double worst_exp = 0, worst_log = 0;
    for (uint64_t bits = 0; bits < (1ull << 32); bits += 3001) { /* all signs and exponents */
        float x = k_float((uint32_t)bits);
        if (isnan(x))
            continue;
        float e = k_exp(x), l = k_log(x);
        double want = exp((double)x);
        if (want < 3.4028234e38)
            worst_exp = fmax(worst_exp, ulps(e, want));
        else
            assert_true(isinf(e));
        if (x > 0 && !isinf(x))
            worst_log = fmax(worst_log, ulps(l, log((double)x)));
        else if (x < 0)
            assert_true(isnan(l));
    }
    for (float x = -104; x < 89; x += 0.00097f)
        if (exp((double)x) < 3.4028234e38)
            worst_exp = fmax(worst_exp, ulps(k_exp(x), exp((double)x)));
    assert_true(worst_exp < 1);
    assert_true(worst_log < 1);
}

static void exact_values(void **state)
{
    (void)state;
    assert_true(k_exp(0.0f) == 1 && k_exp(-0.0f) == 1);
    assert_true(k_exp(-INFINITY) == 0 && !signbit(k_exp(-INFINITY)));
    assert_true(isinf(k_exp(INFINITY)) && isinf(k_exp(89.0f)));
    assert_true(k_exp(-200.0f) == 0);
    assert_true(k_exp(-103.0f) > 0); /* 1.4e-45, the least denormal */
    assert_true(isnan(k_exp(NAN)));
    assert_true(k_log(1.0f) == 0 && !signbit(k_log(1.0f)));
    assert_true(k_log(0.0f) == -INFINITY && k_log(INFINITY) == INFINITY);
    assert_true(isnan(k_log(-1.0f)) && isnan(k_log(NAN)));
    assert_true(k_sigmoid(0.0f) == 0.5f && k_sigmoid(-200.0f) == 0 && k_sigmoid(200.0f) == 1);
    assert_true(k_neg_log_sigmoid(200.0f) == 0 && k_neg_log_sigmoid(-200.0f) == 200);
}

static void row_reductions_keep_the_written_order(void **state)
{
    (void)state;
    float x[100], lane[SUM_LANES] = {0};
    for (int i = 0; i < 100; i++)
        x[i] = 1.0f / (float)(i + 1) * (i % 3 ? 1 : -1);
    for (int i = 0; i < 100; i++)
        lane[i % 32] += x[i];
    for (int w = 16; w; w /= 2)
        for (int i = 0; i < w; i++)
            lane[i] += lane[i + w];
    assert_true(row_sum(x, 100) == lane[0]);
    assert_true(row_max(x, 100) == 0.5f);
    assert_true(row_max(x, 0) == -INFINITY);
    assert_true(row_dot(x, x, 1) == 1);
}

static void bf16_rounds_to_nearest_even(void **state)
{
    (void)state;
    Device *dev = open_cpu(1);
    /* 1 + 2^-8 is half way between 1 and 1 + 2^-7: to even, down; 1 + 3 * 2^-8 up to 1 + 2^-6 */
    float x[] = {1,         1 + 0x1p-8f, 1 + 3 * 0x1p-8f, 1 + 0x1p-8f + 0x1p-23f,
                 -INFINITY, NAN,         3.4028235e38f};
    uint16_t y[7], want[] = {0x3f80, 0x3f80, 0x3f82, 0x3f81, 0xff80, 0x7fc0, 0x7f80};
    Tensor tx = tensor_make1(x, dev, DTYPE_F32, 7), ty = tensor_make1(y, dev, DTYPE_BF16, 7);
    op_convert(&ty, &tx);
    for (int i = 0; i < 7; i++)
        assert_int_equal(y[i] & (i == 5 ? 0x7fc0 : 0xffff), want[i]);
    device_close(dev);
}

/* ---- one process
 * ---------------------------------------------------------------------------------------- */

static void world_of_one(void **state)
{
    (void)state;
    Comm *c;
    assert_int_equal(comm_open(&c, 60), 0);
    assert_int_equal(comm_rank(c), 0);
    assert_int_equal(comm_world(c), 1);
    double src[2] = {1, 2}, dst[2] = {0};
    assert_int_equal(comm_gather_f64(c, dst, src, 2), 0);
    assert_true(dst[1] == 2);
    int64_t stop = 1;
    assert_int_equal(comm_max_i64(c, &stop), 0);
    assert_int_equal(stop, 1);
    assert_int_equal(comm_barrier(c), 0);
    comm_close(c);
    setenv("WORLD_SIZE", "4", 1);
    assert_int_equal(comm_open(&c, 60), ERR_UNAVAILABLE);
    assert_non_null(strstr(error_text(), "WORLD_SIZE=4"));
    unsetenv("WORLD_SIZE");
    comm_close(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tensor_sizes),
        cmocka_unit_test(tensor_views),
        cmocka_unit_test(arena_plan_is_what_is_used),
        cmocka_unit_test(arena_parts_share_bytes),
        cmocka_unit_test(arena_of_huge_pages_is_aligned),
        cmocka_unit_test(our_mistakes_abort),
        cmocka_unit_test(plan_that_does_not_fit_is_refused),
        cmocka_unit_test(device_names),
        cmocka_unit_test(device_scratch_grows_and_is_counted),
        cmocka_unit_test(ranges_cover_everything_once),
        cmocka_unit_test(every_part_runs_once_per_call),
        cmocka_unit_test(exp_and_log_are_within_one_ulp),
        cmocka_unit_test(exact_values),
        cmocka_unit_test(row_reductions_keep_the_written_order),
        cmocka_unit_test(bf16_rounds_to_nearest_even),
        cmocka_unit_test(world_of_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
