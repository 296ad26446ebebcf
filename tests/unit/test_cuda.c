/* test_cuda.c - the seam to the CUDA library: names and refusals, memory, copies, events, arenas, and
 * a chain of ops. What needs a card runs where one can be opened: on the shim (make emu puts this
 * program beside its library) or a real one; elsewhere it is skipped. Refusals run a copy of this
 * program, `test_cuda open NAME`, in a folder with the wrong library or none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/model/llama.h"
#include "common/runtime/arena.h"
#include "common/runtime/backend.h"
#include "common/runtime/device.h"
#include "common/runtime/ops.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define LIBRARY "librlhf_cuda.so"

static Device *card; /* NULL: there is none */

static void need_card(void)
{
    if (!card)
        skip();
}

static void need_shim(void)
{
    if (!card || !strstr(device_text(card), "host shim"))
        skip();
}

/* ---- refusals ----------------------------------------------------------------------------------- */

/* Runs `dir/test_cuda open name` with one more variable; its exit status, what it printed in *text. */
static int open_elsewhere(const char *dir, const char *name, const char *variable,
                          const char *value, char text[1024])
{
    int fd[2];
    assert_int_equal(pipe(fd), 0);
    pid_t pid = fork();
    if (pid == 0) {
        char path[PATH_MAX];
        snprintf(path, sizeof path, "%s/test_cuda", dir);
        dup2(fd[1], 1);
        if (variable)
            setenv(variable, value, 1);
        execl(path, path, "open", name, (char *)NULL);
        _exit(127);
    }
    close(fd[1]);
    size_t n = 0;
    for (ssize_t got; (got = read(fd[0], text + n, 1023 - n)) > 0;)
        n += (size_t)got;
    text[n] = 0;
    close(fd[0]);
    int status;
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void open_prints(const char *dir, const char *name, int status, const char *words)
{
    char text[1024];
    assert_int_equal(open_elsewhere(dir, name, NULL, NULL, text), status);
    if (!strstr(text, words))
        fail_msg("'%s' is not in: %s", words, text);
}

/* The folder this program stands in. */
static void own_dir(char dir[PATH_MAX])
{
    ssize_t n = readlink("/proc/self/exe", dir, PATH_MAX - 1);
    assert_true(n > 0);
    dir[n] = 0;
    *strrchr(dir, '/') = 0;
}

/* A new folder x/y with a link to this program in y: its ../bin and ../lib are ours to fill. */
static char *folder_make(char dir[PATH_MAX])
{
    const char *tmp = getenv("TMP");
    char self[PATH_MAX], copy[PATH_MAX + 16], command[3 * PATH_MAX];
    snprintf(dir, PATH_MAX - 16, "%s/test_cuda.XXXXXX", tmp ? tmp : "/tmp");
    assert_non_null(mkdtemp(dir));
    strcat(dir, "/bin");
    assert_int_equal(mkdir(dir, 0777), 0);
    own_dir(self);
    snprintf(copy, sizeof copy, "%s/test_cuda", dir);
    snprintf(command, sizeof command, "cp '%s/test_cuda' '%s'", self, copy);
    assert_int_equal(system(command), 0);
    return dir;
}

static void folder_remove(char dir[PATH_MAX])
{
    char command[PATH_MAX + 16];
    *strrchr(dir, '/') = 0;
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    assert_int_equal(system(command), 0);
}

static void names(void **state)
{
    (void)state;
    static const char *const bad[] = {"gpu", "cuda:", "cuda:x", "cuda:1x", "cuda:-1", "cuda:12345"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        Device *dev;
        assert_int_equal(device_open(&dev, &(DeviceOptions){.name = bad[i]}), ERR_CONFIG);
        assert_null(dev);
        assert_non_null(strstr(error_text(), "is not a device (auto, cpu, cuda, cuda:N)"));
    }
}

static void no_library_is_refused(void **state)
{
    (void)state;
    char dir[PATH_MAX];
    folder_make(dir);
    open_prints(dir, "cuda", 69,
                "device: cuda:0 asked for, but librlhf_cuda.so is not beside the program; set "
                "device: cpu, or build with CUDA=1");
    open_prints(dir, "cuda:3", 69, "device: cuda:3 asked for, but librlhf_cuda.so is not beside");
    open_prints(dir, "auto", 0, "cpu, ");
    open_prints(dir, "cpu", 0, "cpu, ");
    folder_remove(dir);
}

/* Not a library; one that is not ours. */
static void wrong_library_is_refused(void **state)
{
    (void)state;
    char dir[PATH_MAX], path[PATH_MAX + 32];
    folder_make(dir);
    snprintf(path, sizeof path, "%s/" LIBRARY, dir);
    assert_int_equal(file_write_atomic(path, "no library", 10), 0);
    open_prints(dir, "cuda", 69, "device: cuda:0 asked for, but ");
    open_prints(dir, "cuda", 69, LIBRARY);
    assert_int_equal(unlink(path), 0);

    Dl_info info;
    assert_int_not_equal(dladdr((void *)_cmocka_run_group_tests, &info), 0);
    assert_int_equal(symlink(info.dli_fname, path), 0);
    open_prints(dir, "cuda", 69, "was built from other sources than this program; build both again");
    folder_remove(dir);
}

static void other_hash_is_refused(void **state)
{
    (void)state;
    need_card();
    char dir[PATH_MAX], path[PATH_MAX + 32];
    own_dir(dir);
    snprintf(path, sizeof path, "%s/../bin/" LIBRARY, dir);
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    assert_non_null(library);
    CudaBackendFn fn = NULL;
    *(void **)&fn = dlsym(library, CUDA_BACKEND_SYMBOL);
    assert_non_null(fn);
    BackendHost host = {NULL};
    assert_null(fn(0xdeadbeef, &host));
    dlclose(library);
}

static void cards_that_are_not_there_are_refused(void **state)
{
    (void)state;
    need_card();
    char dir[PATH_MAX];
    own_dir(dir);
    open_prints(dir, "cuda:9999", 69, "device: cuda:9999 asked for, but there ");
    open_prints(dir, "cuda:0", 0, "cuda:0, ");
}

static void troubles_of_the_machine_are_one_sentence(void **state)
{
    (void)state;
    need_shim();
    static const struct {
        const char *name, *variable, *value, *words;
    } t[] = {
        {"cuda:1", "EMU_CARDS", "1", "device: cuda:1 asked for, but there is 1 card"},
        {"cuda:2", "EMU_CARDS", "2", "device: cuda:2 asked for, but there are 2 cards"},
        {"cuda", "EMU_CARDS", "0",
         "there is no NVIDIA card: no CUDA-capable device is detected; set device: cpu"},
        {"cuda", "EMU_FAIL", "cudaGetDeviceCount:1:35",
         "there is no usable NVIDIA driver: CUDA driver version is insufficient"},
        {"cuda", "EMU_FAIL", "cudaSetDevice:1:101", "device: cuda:0 cannot be made current: "},
        {"cuda", "EMU_FAIL", "cudaStreamCreateWithFlags:2", "device: cuda:0 cannot be opened: "},
        {"cuda", "EMU_FAIL", "cudaMalloc:1", "device: cuda:0 cannot be opened: out of memory"},
    };
    char dir[PATH_MAX], text[1024];
    own_dir(dir);
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        assert_int_equal(open_elsewhere(dir, t[i].name, t[i].variable, t[i].value, text), 69);
        if (!strstr(text, t[i].words))
            fail_msg("'%s' is not in: %s", t[i].words, text);
    }
    assert_int_equal(open_elsewhere(dir, "cuda:1", "EMU_CARDS", "2", text), 0);
    assert_non_null(strstr(text, "cuda:1, host shim"));
}

/* Models in bf16 are for cards that multiply it: else one line that begins with the key's place. */
static void bf16_where_a_card_can(void **state)
{
    (void)state;
    need_card();
    assert_int_equal(device_check_dtype(card, DTYPE_F32, "run.yaml:3:1"), 0);
    if (device_can_bf16(card)) {
        assert_int_equal(device_check_dtype(card, DTYPE_BF16, "run.yaml:3:1"), 0);
        return;
    }
    assert_int_equal(device_check_dtype(card, DTYPE_BF16, "run.yaml:3:1"), ERR_CONFIG);
    assert_ptr_equal(strstr(error_text(), "run.yaml:3:1: dtype: bf16"), error_text());
    assert_null(strchr(error_text(), '\n'));
}

/* Heads that bf16 attention has no kernel for are refused before anything is allocated; in f32 there is one. */
static void heads_too_wide_for_bf16(void **state)
{
    (void)state;
    need_card();
    if (!device_can_bf16(card))
        skip();
    const int64_t most = BF16_HEAD_DIM_MAX;
    ModelConfig c = {.C = 32, .F = 48, .V = 40, .L = 1, .H = 2, .K = 1, .D = most + 2, .norm_eps = 1e-5,
                     .rope_theta = 1e4, .max_position = 8, .folder = "models/wide"};
    Arena a;
    Model m = {0};
    arena_init(&a, card, ARENA_DEVICE, "weights");
    assert_int_equal(model_init(&m, &c, DTYPE_BF16, card, &a, 8), ERR_CONFIG);
    assert_ptr_equal(strstr(error_text(), "models/wide/config.json: head_dim: heads of "), error_text());
    assert_non_null(strstr(error_text(), "set dtype: f32"));
    assert_null(strchr(error_text(), '\n'));
    assert_null(m.table.def);
    assert_int_equal(arena_planned(&a), 0);
    assert_int_equal(model_init(&m, &c, DTYPE_F32, card, &a, 8), 0);
    model_free(&m);
    c.D = most;
    assert_int_equal(model_init(&m, &c, DTYPE_BF16, card, &a, 8), 0);
    model_free(&m);
}

/* ---- memory ------------------------------------------------------------------------------------- */

static void what_it_says_of_itself(void **state)
{
    (void)state;
    need_card();
    assert_int_equal(device_kind(card), DEVICE_CUDA);
    assert_int_equal(strncmp(device_text(card), "cuda:0, ", 8), 0);
    assert_int_equal(device_threads(card), 1);
    assert_true(device_memory_bytes(card) > (size_t)64 << 20);
}

/* From the first bf16 model on a GiB is the vendor's library's; in f32 all that was free is for arenas. */
static void memory_of_products(void **state)
{
    (void)state;
    need_card();
    const size_t reserve = (size_t)1 << 30;
    Device *dev;
    assert_int_equal(device_open(&dev, &(DeviceOptions){.name = "cuda:0"}), 0);
    const size_t all = device_memory_bytes(dev);
    for (DType dtype = DTYPE_F32; dtype <= DTYPE_BF16; dtype++) {
        Arena a;
        Model m = {0};
        arena_init(&a, dev, ARENA_DEVICE, "weights");
        assert_int_equal(model_init(&m, &(ModelConfig){.C = 32, .F = 48, .V = 40, .L = 1, .H = 2, .K = 1, .D = 16,
                                                       .rope_theta = 1e4, .max_position = 8}, dtype, dev, &a, 8), 0);
        model_free(&m);
        bool library = dtype == DTYPE_BF16 && device_can_bf16(dev);
        assert_int_equal(device_memory_bytes(dev), !library ? all : all > reserve ? all - reserve : 0);
    }
    device_close(dev);
}

enum { N = 1000 };

static void build(Arena *a, Tensor *x, Tensor *y)
{
    *x = arena_rows1(a, DTYPE_F32, N);
    *y = arena_rows2(a, DTYPE_F32, 3, N);
}

/* Every kind of arena: zero-filled, keeps what is written, planned to the byte. */
static void arenas(void **state)
{
    (void)state;
    need_card();
    static const ArenaKind kinds[] = {ARENA_DEVICE, ARENA_PINNED, ARENA_HOST, ARENA_SHARED};
    for (int k = 0; k < 4; k++) {
        Arena a;
        Tensor x, y;
        float up[3 * N], down[3 * N];
        arena_init(&a, card, kinds[k], "test");
        build(&a, &x, &y);
        assert_null(x.data);
        assert_int_equal(arena_planned(&a), 4096 + 12032); /* 4000 and 12000, to multiples of 256 */
        assert_int_equal(arena_commit(&a), 0);
        build(&a, &x, &y);
        assert_int_equal((uintptr_t)x.data % 64, 0);
        for (int i = 0; i < 3 * N; i++) {
            up[i] = (float)i;
            down[i] = 1;
        }
        if (kinds[k] == ARENA_DEVICE || kinds[k] == ARENA_SHARED) {
            device_download(down, &y, sizeof down);
            for (int i = 0; i < 3 * N; i++)
                assert_true(down[i] == 0);
            device_upload(&y, up, sizeof up);
            device_upload(&y, up + 7, 5 * sizeof *up); /* a part, from the start */
            device_download(down, &y, sizeof down);
            memcpy(up, up + 7, 5 * sizeof *up);
            assert_memory_equal(up, down, sizeof up);
            device_download(down, &x, N * sizeof *down);
            assert_true(down[0] == 0 && down[N - 1] == 0);
        }
        if (kinds[k] != ARENA_DEVICE) { /* the host may write there */
            ((float *)y.data)[3 * N - 1] = 5;
            assert_true(((float *)x.data)[0] == 0);
        }
        assert_int_equal(arena_high(&a), arena_planned(&a));
        arena_free(&a);
    }
}

static void too_much_memory_is_refused(void **state)
{
    (void)state;
    need_card();
    Arena a;
    arena_init(&a, card, ARENA_DEVICE, "much");
    arena_rows1(&a, DTYPE_F32, (int64_t)1 << 44);
    assert_int_equal(arena_commit(&a), ERR_UNAVAILABLE);
    assert_non_null(strstr(error_text(), "memory: the system did not give 70368744177664 bytes"));
    arena_free(&a);
}

static Tensor card_rows(Arena *a, int64_t d0, int64_t d1, const float *values)
{
    Tensor t = arena_rows2(a, DTYPE_F32, d0, d1);
    if (t.data && values)
        device_upload(&t, values, (size_t)(d0 * d1) * sizeof *values);
    return t;
}

/* The copy stream waits for the compute stream and the other way round; an event is used twice. */
static void events(void **state)
{
    (void)state;
    need_card();
    Arena a;
    Tensor x = {0}, y = {0};
    Event e = {0}, never = {0};
    arena_init(&a, card, ARENA_DEVICE, "events");
    for (int run = 0; run < 2; run++) {
        x = card_rows(&a, 4, 8, NULL), y = card_rows(&a, 4, 8, NULL);
        if (!run)
            assert_int_equal(arena_commit(&a), 0);
    }
    for (int i = 1; i <= 2; i++) {
        float down[32];
        op_fill(&x, i);
        event_record(&e, card, STREAM_COMPUTE);
        assert_non_null(e.handle);
        event_wait(&e, card, STREAM_COPY);
        event_wait(&never, card, STREAM_COPY); /* one that was not recorded is no obstacle */
        op_add(&y, &x, &x);
        event_record(&e, card, STREAM_COPY);
        event_wait(&e, card, STREAM_COMPUTE);
        device_sync(card);
        device_download(down, &y, sizeof down);
        assert_true(down[0] == 2 * i && down[31] == 2 * i);
    }
    event_free(&e, card);
    assert_null(e.handle);
    event_free(&e, card);
    event_free(&never, card);
    arena_free(&a);
}

/* Nothing runs while it is recorded; a launch runs all of it on what the tensors hold by then. */
static void graphs(void **state)
{
    (void)state;
    need_card();
    assert_true(device_can_capture(card));
    Arena a;
    Tensor x = {0}, y = {0}, z = {0};
    Graph g = {0}, other = {0};
    float down[32], up[32];
    arena_init(&a, card, ARENA_DEVICE, "graphs");
    for (int run = 0; run < 2; run++) {
        x = card_rows(&a, 4, 8, NULL), y = card_rows(&a, 4, 8, NULL), z = card_rows(&a, 4, 8, NULL);
        if (!run)
            assert_int_equal(arena_commit(&a), 0);
    }
    for (int run = 0; run < 2; run++) { /* as it is, then recorded */
        op_fill(&z, 0);
        if (run)
            graph_begin(card);
        op_add(&y, &x, &x);
        op_convert(&z, &y); /* a copy on the card */
        op_axpy(&z, 1, &x, true);
        op_fill(&x, 0);
    }
    graph_end(&g, card);
    for (int i = 0; i < 3; i++) {
        for (int k = 0; k < 32; k++)
            up[k] = (float)(i * 100 + k);
        device_upload(&x, up, sizeof up);
        device_download(down, &z, sizeof down);
        assert_true(down[5] == (i ? 3 * (float)(i * 100 - 100 + 5) : 0));
        graph_launch(&g, card);
        device_download(down, &z, sizeof down);
        for (int k = 0; k < 32; k++)
            assert_true(down[k] == 3 * up[k]);
        device_download(down, &x, sizeof down);
        assert_true(down[31] == 0);
    }
    graph_free(&g, card);
    assert_null(g.handle);
    graph_free(&g, card);
    graph_begin(card); /* an empty one */
    graph_end(&other, card);
    graph_launch(&other, card);
    graph_free(&other, card);
    arena_free(&a);
}

/* A device that records nothing says so, and it is our bug to ask. */
static void no_graphs_on_the_cpu(void **state)
{
    (void)state;
    Device *cpu;
    assert_int_equal(device_open(&cpu, &(DeviceOptions){"cpu", 1, ISA_AUTO}), 0);
    assert_false(device_can_capture(cpu));
    Event e = {0};
    event_record(&e, cpu, STREAM_COMPUTE);
    event_free(&e, cpu);
    Graph none = {0};
    graph_free(&none, cpu);
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(open("/dev/null", O_WRONLY), 2);
        graph_begin(cpu);
        _exit(0);
    }
    int status;
    waitpid(pid, &status, 0);
    assert_false(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    device_close(cpu);
}

/* ---- ops ---------------------------------------------------------------------------------------- */

enum { T = 37, C = 33, F = 70 };

/* y = x + swiglu(norm(x) w1, norm(x) w2) w3, on memory that only the device sees. */
static void feed_forward(Device *dev, float *out, const float *in, const float *w)
{
    Arena a;
    Tensor x, norm, rstd, scale, w1, w2, w3, gate, up, mid, y, flat;
    arena_init(&a, dev, ARENA_DEVICE, "chain");
    for (int run = 0; run < 2; run++) {
        x = card_rows(&a, T, C, run ? in : NULL);
        norm = card_rows(&a, T, C, NULL), y = card_rows(&a, T, C, NULL);
        gate = card_rows(&a, T, F, NULL), up = card_rows(&a, T, F, NULL);
        mid = card_rows(&a, T, F, NULL);
        rstd = arena_rows1(&a, DTYPE_F32, T), scale = arena_rows1(&a, DTYPE_F32, C);
        w1 = arena_panel(&a, DTYPE_F32, F, C), w2 = arena_panel(&a, DTYPE_F32, F, C);
        w3 = arena_panel(&a, DTYPE_F32, C, F);
        flat = card_rows(&a, F, C, run ? w : NULL);
        if (!run)
            assert_int_equal(arena_commit(&a), 0);
    }
    Tensor turned = tensor_view2(&flat, C, F);
    op_convert(&w1, &flat);
    op_axpy(&w2, 0.5, &flat, false);
    op_convert(&w3, &turned);
    op_fill(&scale, 1.25);
    op_rmsnorm(&norm, &rstd, &x, &scale, 1e-5);
    op_linear(&gate, &norm, &w1, false);
    op_linear(&up, &norm, &w2, false);
    op_swiglu(&mid, &gate, &up);
    op_linear(&y, &mid, &w3, false);
    op_add(&y, &y, &x);
    device_download(out, &y, T * C * sizeof *out);
    arena_free(&a);
}

static void chain_has_the_bits_of_the_cpu(void **state)
{
    (void)state;
    need_card();
    static float in[T * C], w[F * C], want[T * C], got[T * C];
    for (int i = 0; i < T * C; i++)
        in[i] = (float)(i * 37 % 101 - 50) / 17;
    for (int i = 0; i < F * C; i++)
        w[i] = (float)(i * 53 % 97 - 48) / 131;
    Device *cpu;
    assert_int_equal(device_open(&cpu, &(DeviceOptions){"cpu", 1, ISA_AUTO}), 0);
    feed_forward(cpu, want, in, w);
    feed_forward(card, got, in, w);
    assert_memory_equal(want, got, sizeof want);
    assert_true(got[5] != in[5]);
    device_close(cpu);
}

/* Two open at a time, and one opened again after it was closed. */
static void opened_twice(void **state)
{
    (void)state;
    need_card();
    Device *other;
    for (int i = 0; i < 2; i++) {
        assert_int_equal(device_open(&other, &(DeviceOptions){.name = "cuda:0"}), 0);
        assert_string_equal(device_text(other), device_text(card));
        device_close(other);
    }
}

/* ---- who makes products of bf16 ------------------------------------------------------------------- */

enum { PM = 100, PN = 24, PK = 200 };

static void add_line(void *ctx, const char *text)
{
    char *all = ctx;
    snprintf(all + strlen(all), 2048 - strlen(all), "%s\n", text);
}

/* A row of bf16 whose second half is the first again, times -1 for weights: sums are zero but for their
 * roundings, which every order makes its own way. */
static void fill_half(uint16_t *p, int rows, int mix, bool turn)
{
    for (int i = 0; i < rows * PK; i++) {
        int k = i % PK, at = i / PK * (PK / 2) + k % (PK / 2);
        p[i] = (uint16_t)(0x3c00 + at * mix % 1013 + (at % 3 == 0) * 0x8000);
        p[i] ^= turn && k >= PK / 2 ? 0x8000 : 0;
    }
}

/* y (rows, PN) of the first rows of x and all of w. */
static void product(Device *dev, uint16_t *out, int rows)
{
    static uint16_t half_x[PM * PK], half_w[PN * PK];
    Arena a;
    Tensor x, w, y;
    arena_init(&a, dev, ARENA_DEVICE, "product");
    for (int run = 0; run < 2; run++) {
        x = arena_rows2(&a, DTYPE_BF16, rows, PK);
        w = arena_rows2(&a, DTYPE_BF16, PN, PK);
        y = arena_rows2(&a, DTYPE_BF16, rows, PN);
        if (!run)
            assert_int_equal(arena_commit(&a), 0);
    }
    fill_half(half_x, PM, 7919, false);
    fill_half(half_w, PN, 7741, true);
    device_upload(&x, half_x, tensor_bytes(&x));
    device_upload(&w, half_w, tensor_bytes(&w));
    op_linear(&y, &x, &w, false);
    device_download(out, &y, tensor_bytes(&y));
    arena_free(&a);
}

/* The shim's library offers algorithms by their order of sums; see tests/emu/emu_blas.h. */
static void products_keep_the_bits_of_rows(void **state)
{
    (void)state;
    need_shim();
    static const struct {
        const char *offers, *words;
    } cases[] = {
        {NULL, "products: ours, no cuBLASLt"},
        {"ascending", "product y (24, 200) bf16: cuBLASLt above 64 rows, ours below, algorithm 0"},
        {"descending", "product y (24, 200) bf16: cuBLASLt, algorithm 1"},
        {"by_rows", "product y (24, 200) bf16: ours, 1 algorithms tried; equal rows: cuBLASLt alone 6"},
        {"by_rows,descending", "cuBLASLt, algorithm 1 tile 1 stages 1, choice 2 of 2"},
        {"descending,by_rows,ascending", "ours below, algorithm 0 tile 0 stages 0, choice 3 of 3"},
    };
    static uint16_t all[PM * PN], few[PM * PN], own[PM * PN];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[2048] = "";
        Device *dev;
        if (cases[i].offers)
            setenv("EMU_BLAS", cases[i].offers, 1);
        assert_int_equal(device_open(&dev, &(DeviceOptions){.name = "cuda"}), 0);
        device_products(dev, add_line, text);
        assert_string_equal(text, "");
        product(dev, all, PM);
        product(dev, few, 3);
        assert_memory_equal(all, few, 3 * PN * sizeof *all);
        device_products(dev, add_line, text);
        if (!strstr(text, cases[i].words))
            fail_msg("'%s' is not in: %s", cases[i].words, text);
        device_choose_products(dev, PRODUCTS_OWN);
        product(dev, own, PM);
        bool serves_others = cases[i].offers && strstr(cases[i].words, "cuBLASLt, algorithm 1");
        assert_int_equal(memcmp(all, own, sizeof all) != 0, serves_others);
        device_close(dev);
    }
    unsetenv("EMU_BLAS");
}

/* Without the probe, an order that depends on the number of rows shows: the check above can fail. */
static void library_alone_may_differ(void **state)
{
    (void)state;
    need_shim();
    static uint16_t all[PM * PN], few[PM * PN];
    Device *dev;
    setenv("EMU_BLAS", "by_rows", 1);
    assert_int_equal(device_open(&dev, &(DeviceOptions){.name = "cuda"}), 0);
    device_choose_products(dev, PRODUCTS_LIBRARY);
    product(dev, all, PM);
    product(dev, few, 3);
    assert_memory_not_equal(all, few, 3 * PN * sizeof *all);
    device_close(dev);
    unsetenv("EMU_BLAS");
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "open") == 0) {
        Device *dev;
        int rc = device_open(&dev, &(DeviceOptions){.name = argv[2]});
        puts(rc < 0 ? error_text() : device_text(dev));
        device_close(dev);
        return -rc;
    }
    if (device_open(&card, &(DeviceOptions){.name = "cuda"}) < 0)
        card = NULL;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names),
        cmocka_unit_test(no_library_is_refused),
        cmocka_unit_test(wrong_library_is_refused),
        cmocka_unit_test(other_hash_is_refused),
        cmocka_unit_test(cards_that_are_not_there_are_refused),
        cmocka_unit_test(troubles_of_the_machine_are_one_sentence),
        cmocka_unit_test(bf16_where_a_card_can),
        cmocka_unit_test(heads_too_wide_for_bf16),
        cmocka_unit_test(memory_of_products),
        cmocka_unit_test(what_it_says_of_itself),
        cmocka_unit_test(arenas),
        cmocka_unit_test(too_much_memory_is_refused),
        cmocka_unit_test(events),
        cmocka_unit_test(graphs),
        cmocka_unit_test(no_graphs_on_the_cpu),
        cmocka_unit_test(chain_has_the_bits_of_the_cpu),
        cmocka_unit_test(opened_twice),
        cmocka_unit_test(products_keep_the_bits_of_rows),
        cmocka_unit_test(library_alone_may_differ),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    device_close(card);
    return failed;
}
