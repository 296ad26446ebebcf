/* bench.c - `make bench`: how fast this tree is on this machine, against ceilings measured in the same
 * run. Arguments, the order of sections, the shapes; see README.md of this folder's parent. */
#include "tests/bench/bench.h"

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/mem.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char usage_text[] =
    "usage: bench [options]\n"
    "  --device cpu|cuda|cuda:N   (cpu)\n"
    "  --threads N,N...           thread counts, ascending; 0 = all cores (1,0)\n"
    "  --only SECTION,...         ceilings, ops, steps, decode, ppo, growth, text,\n"
    "                             products, attention (all of them)\n"
    "  --shapes SHAPE,...         15m, 135m; of a card in bf16 1.5b, 7b, and of ppo 1.3b (all); large ones run with the\n"
    "                             last thread count, those that the card cannot hold are left out\n"
    "  --dtypes DTYPE,...         f32, bf16 (both) of steps, decode and ppo\n"
    "  --recompute LEVEL,...      none, elementwise, mlp, layer (none): gradient_checkpointing of steps\n"
    "  --match TEXT               of steps, decode and text only rows whose name holds it, PyTorch's too; of growth\n"
    "                             the axis: length, batch, vocabulary, layers; of ops the op\n"
    "  --repeat N                 measurements of a row, whatever they take (up to 5 within --seconds)\n"
    "  --seconds S                a row is not repeated for longer, but measured twice (8)\n"
    "  --quick                    a tiny shape, two measurements: does it run at all\n"
    "  --profile                  steps and decode op by op, not only where a target is missed\n"
    "  --full                     every case of every op, every section for every shape\n"
    "  --out DIR                  where bench.jsonl and bench.svg go (build)\n"
    "  --from FILE                rows of an earlier bench.jsonl instead of measuring\n"
    "  --torch PYTHON             peer_torch.py beside every section, into DIR/peer.jsonl, then as --peer\n"
    "  --llama DIR                peer_llama.py beside decode, on the CPU: DIR is a checkout of llama.cpp, built there\n"
    "  --peer FILE                JSON lines of peer_torch.py: prints ratios\n";

double bench_now(int threads)
{
    struct timespec t;
    clock_gettime(threads == 1 ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

bool bench_is_cuda(const Bench *b)
{
    return strncmp(b->device_name, "cuda", 4) == 0;
}

Device *bench_open_device(const Bench *b, int threads)
{
    Device *dev = NULL;
    DeviceOptions o = {.name = b->device_name, .threads = threads};
    CHECK(device_open(&dev, &o) == 0, "%s", error_text());
    return dev;
}

const Ceiling *bench_ceiling(Bench *b, int which)
{
    if (!b->ceiling[which].n_points)
        ceilings_measure(b, which);
    return &b->ceiling[which];
}

double bench_share(Bench *b, int which)
{
    double before = b->rate_before, after = ceiling_now(b, which);
    b->rate_before = after;
    return (before + after) / 2;
}

bool bench_is_bf16(const Bench *b)
{
    return b->dtype == DTYPE_BF16;
}

Row bench_row(const Bench *b, int which, const char *unit, double floor)
{
    static const double bf16_floor = 2.5;
    Row row = {.threads = bench_is_cuda(b) ? 0 : b->threads[which], .floor = floor};
    if (bench_is_bf16(b) && floor > 0 && floor < bf16_floor)
        row.floor = bf16_floor;
    snprintf(row.unit, sizeof row.unit, "%s", unit);
    snprintf(row.dtype, sizeof row.dtype, "%s", dtype_name(b->dtype));
    return row;
}

void bench_take(Row *row, double value, double share)
{
    row->value[row->n] = value;
    row->fraction[row->n] = row->roof > 0 ? value / (row->roof * share) : 0;
    row->n++;
}

bool bench_wanted(const Bench *b, const char *name)
{
    return !b->match || strstr(name, b->match);
}

bool bench_again(const Bench *b, int n, double started)
{
    return n < 2 || (n < b->repeat && bench_now(0) - started < b->seconds);
}

/* ---- shapes ------------------------------------------------------------------------------------- */

#define LLAMA(c, f, v, l, h, k, d, theta, tie)                                                                         \
    {                                                                                                                  \
        .architecture = "Llama", .head = HEAD_LM, .C = c, .F = f, .V = v, .L = l, .H = h, .K = k, .D = d,              \
        .norm_eps = 1e-5, .rope_theta = theta, .tied = tie, .max_position = 2048, .bos = -1, .pad = -1                 \
    }
static const Shape shapes[] = {
    {.name = "15m", .config = LLAMA(288, 768, 32000, 6, 6, 6, 48, 1e4, true), .S = 8, .T = 256, .ppo = {32, 64, 64},
     .target = {{0.68, 0.85, 0.55}, {0.50, 0.85, 0.40}}},
    {.name = "135m", .config = LLAMA(576, 1536, 49152, 30, 9, 3, 64, 1e5, true), .S = 8, .T = 256, .ppo = {32, 64, 64},
     .target = {{0.75, 0.85, 0.75}, {0.62, 0.85, 0.65}}},
    {.name = "1.5b", .config = LLAMA(1536, 8960, 151936, 28, 12, 2, 128, 1e6, true), .S = 8, .T = 1024, .of_cards = true,
     .target = {{0}, {.decode_one = 0.50}}},
    {.name = "7b", .config = LLAMA(4096, 11008, 32000, 32, 32, 32, 128, 1e4, false), .S = 4, .T = 1024, .of_cards = true,
     .target = {{0}, {.decode_one = 0.70}}},
    {.name = "1.3b", .config = LLAMA(2048, 5440, 50272, 24, 32, 32, 64, 1e4, true), .ppo = {64, 256, 256}, .of_cards = true},
};
static const Shape tiny = {.name = "tiny", .config = LLAMA(64, 96, 160, 2, 4, 2, 16, 1e4, true), .S = 4, .T = 24, .ppo = {4, 16, 16}};
enum { N_SHAPES = sizeof shapes / sizeof *shapes, COSTLY = 1 };

double shape_layer_weights(const Shape *s)
{
    const ModelConfig *m = &s->config;
    return (double)(m->L * (2 * m->C * m->H * m->D + 2 * m->C * m->K * m->D + 3 * m->C * m->F));
}

double shape_head_weights(const Shape *s)
{
    return (double)(s->config.C * s->config.V);
}

double shape_step_flops(const Shape *s, HeadKind head)
{
    double N = shape_layer_weights(s) + (head == HEAD_LM ? shape_head_weights(s) : 0);
    return 6 * N + 6.0 * (double)(s->config.L * s->config.H * s->config.D) * s->T;
}

/* Whether `word` is in a comma list. */
static bool listed(const char *list, const char *word)
{
    size_t n = strlen(word);
    for (const char *at = list; at; at = strchr(at, ','), at = at ? at + 1 : NULL)
        if (strncmp(at, word, n) == 0 && (at[n] == ',' || !at[n]))
            return true;
    return false;
}

static const DType dtypes[] = {DTYPE_F32, DTYPE_BF16};

static void every_dtype(Bench *b, void (*fn)(Bench *b, const Shape *s, int which), const Shape *s, int which)
{
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++) {
        b->dtype = dtypes[i];
        bool fits = !s->of_cards || (bench_is_cuda(b) && bench_is_bf16(b));
        if (fits && listed(b->dtypes, dtype_name(b->dtype)))
            fn(b, s, which);
    }
    b->dtype = DTYPE_F32;
}

void bench_shapes(Bench *b, void (*fn)(Bench *b, const Shape *s, int which))
{
    for (int which = 0; which < b->n_threads; which++) {
        if (b->quick)
            every_dtype(b, fn, &tiny, which);
        for (int i = 0; i < N_SHAPES && !b->quick; i++) {
            bool last = which == b->n_threads - 1;
            if ((!b->shapes || listed(b->shapes, shapes[i].name)) && (i < COSTLY || last || b->full))
                every_dtype(b, fn, &shapes[i], which);
        }
    }
}

/* ---- sections ----------------------------------------------------------------------------------- */

static void run_ceilings(Bench *b)
{
    for (int which = 0; which < b->n_threads; which++)
        bench_ceiling(b, which);
}

/* A minute on a CPU; on an emulated card hours. */
static void run_ops(Bench *b)
{
    if (b->quick && !b->only) {
        printf("--quick leaves out ops (--only ops runs them)\n");
        return;
    }
    for (int which = b->full ? 0 : b->n_threads - 1; which < b->n_threads; which++)
        ops_run(b, which);
}

const char *const bench_levels[] = {"none", "elementwise", "mlp", "layer"};

static void every_level(Bench *b, const Shape *s, int which)
{
    for (b->level = RECOMPUTE_NONE; b->level < RECOMPUTE_LEVELS; b->level++)
        if (listed(b->recompute, bench_levels[b->level]))
            steps_run(b, s, which);
    b->level = RECOMPUTE_NONE;
}

static void run_steps(Bench *b)
{
    bench_shapes(b, every_level);
}

static void run_decode(Bench *b)
{
    bench_shapes(b, decode_run);
}

/* 135m takes minutes on a CPU. */
static void ppo_small(Bench *b, const Shape *s, int which)
{
    if (s != &shapes[COSTLY] || b->full || bench_is_cuda(b))
        ppo_run(b, s, which);
}

static void run_ppo(Bench *b)
{
    bench_shapes(b, ppo_small);
}

/* Its model is too large for an emulated card. */
static void run_growth(Bench *b)
{
    if (b->quick && !b->only && bench_is_cuda(b)) {
        printf("--quick leaves out growth on a card (--only growth runs it)\n");
        return;
    }
    CHECK(growth_run(b) == 0, "%s", error_text());
}

static const struct {
    const char *name;
    void (*run)(Bench *b);
    bool has_peer; /* peer_torch.py has it */
} sections[] = {{"ceilings", run_ceilings, false}, {"ops", run_ops, true}, {"steps", run_steps, true},
                {"decode", run_decode, true}, {"ppo", run_ppo, true}, {"growth", run_growth, false},
                {"text", text_run, false}, {"products", products_run, false}, {"attention", attention_run, false}};
enum { N_SECTIONS = sizeof sections / sizeof *sections };

static const double FOREVER = 1e9;

/* ---- arguments ---------------------------------------------------------------------------------- */

typedef struct {
    const char *from, *peer;
} Files;

static int cores(void)
{
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}

/* Ascending, each once. */
static bool read_threads(Bench *b, const char *text)
{
    b->n_threads = 0;
    for (const char *at = text; at; at = strchr(at, ','), at = at ? at + 1 : NULL) {
        char *end;
        long n = strtol(at, &end, 10);
        n = n == 0 ? cores() : n;
        if (end == at || (*end && *end != ',') || n < 1 || n > 1024 || b->n_threads == THREADS_MAX)
            return false;
        if (!b->n_threads || n > b->threads[b->n_threads - 1])
            b->threads[b->n_threads++] = (int)n;
    }
    return true;
}

/* Every word of a list has a name. */
static bool list_known(const char *list, const char *const *names, int n)
{
    for (const char *at = list; at; at = strchr(at, ','), at = at ? at + 1 : NULL) {
        size_t length = strcspn(at, ",");
        bool known = false;
        for (int i = 0; i < n; i++)
            known |= strlen(names[i]) == length && strncmp(names[i], at, length) == 0;
        if (!known)
            return false;
    }
    return true;
}

static bool lists_known(const Bench *b)
{
    const char *names[N_SECTIONS], *shape_names[N_SHAPES];
    for (int i = 0; i < N_SECTIONS; i++)
        names[i] = sections[i].name;
    for (int i = 0; i < N_SHAPES; i++)
        shape_names[i] = shapes[i].name;
    static const char *const dtype_names[] = {"f32", "bf16"};
    return list_known(b->only, names, N_SECTIONS) && list_known(b->shapes, shape_names, N_SHAPES) &&
           list_known(b->dtypes, dtype_names, 2) && list_known(b->recompute, bench_levels, RECOMPUTE_LEVELS);
}

/* One option with its value; false: none such. */
static bool read_option(Bench *b, Files *f, const char *name, const char *value)
{
    const struct {
        const char *name, **text;
    } texts[] = {{"--device", &b->device_name}, {"--only", &b->only}, {"--shapes", &b->shapes}, {"--dtypes", &b->dtypes}, {"--match", &b->match},
                 {"--recompute", &b->recompute},
                 {"--out", &b->out}, {"--from", &f->from}, {"--peer", &f->peer}, {"--point", &b->point}, {"--torch", &b->torch},
                 {"--llama", &b->llama}};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (strcmp(name, texts[i].name) == 0) {
            *texts[i].text = value;
            return true;
        }
    if (strcmp(name, "--threads") == 0)
        return read_threads(b, value);
    if (strcmp(name, "--repeat") == 0) {
        b->repeat = atoi(value);
        b->seconds = b->seconds > 0 ? b->seconds : FOREVER;
        return b->repeat > 0 && b->repeat <= REPEATS_MAX;
    }
    if (strcmp(name, "--seconds") == 0)
        return (b->seconds = atof(value)) > 0;
    return false;
}

/* 0, or ERR_USAGE. */
static int read_arguments(Bench *b, Files *f, int argc, char **argv)
{
    read_threads(b, "1,0");
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--quick") == 0)
            b->quick = true;
        else if (strcmp(argv[i], "--full") == 0)
            b->full = true;
        else if (strcmp(argv[i], "--profile") == 0)
            b->profile = true;
        else if (i + 1 >= argc || !read_option(b, f, argv[i], argv[i + 1]))
            return error_set(ERR_USAGE, "'%s%s%s': no such option or value; see bench --help", argv[i],
                             i + 1 < argc ? " " : "", i + 1 < argc ? argv[i + 1] : "");
        else
            i++;
    }
    b->seconds = b->seconds > 0 ? b->seconds : 8;
    if (b->quick) {
        b->repeat = b->repeat < 2 ? b->repeat : 2;
        b->seconds = 1;
    }
    if (bench_is_cuda(b) && b->llama)
        return error_set(ERR_USAGE, "--llama: llama.cpp is measured on the CPU alone; leave out --device %s", b->device_name);
    if (bench_is_cuda(b)) { /* the host's threads do nothing */
        b->n_threads = 1;
        b->threads[0] = 0;
    }
    if (!b->dtypes)
        b->dtypes = "f32,bf16";
    if (!b->recompute)
        b->recompute = bench_levels[RECOMPUTE_NONE];
    return lists_known(b) ? 0 : error_set(ERR_USAGE, "--only, --shapes, --dtypes or --recompute: unknown name; see bench --help");
}

/* ---- main --------------------------------------------------------------------------------------- */

static char *cpu_name(void)
{
    char *text = NULL, *name = NULL, *at;
    size_t n;
    if (file_read("/proc/cpuinfo", &text, &n) == 0 && (at = strstr(text, "model name\t: ")) != NULL)
        name = xstrndup(at + 13, strcspn(at + 13, "\n"));
    free(text);
    return name ? name : xstrdup("unknown processor");
}

/* Name of the machine, and how busy others keep it: a benchmark on a shared machine says so. */
static int describe(Bench *b)
{
    double load[3] = {0};
    Device *dev = NULL;
    int rc = device_open(&dev, &(DeviceOptions){.name = b->device_name, .threads = b->threads[b->n_threads - 1]});
    if (rc < 0)
        return rc;
    char *cpu = cpu_name();
    if (getloadavg(load, 3) < 1)
        load[0] = -1;
    b->rows.without_targets = device_kind(dev) == DEVICE_CUDA;
    b->rows.machine = xasprintf("%s on %s, %d cores; load average before the run %.1f", device_text(dev), cpu,
                                cores(), load[0]);
    device_close(dev);
    free(cpu);
    printf("%s\n", b->rows.machine);
    if (load[0] > 0.5)
        printf("other programs are running: ratios of one run count, times do not\n");
    return 0;
}

/* A peer on a section's rows, next to ours in time: a shared machine is another one an hour later. */
static int run_peer(const Bench *b, const char *script, const char *options)
{
    const char *python = b->torch ? b->torch : "python3";
    for (int i = 0; i < b->n_threads; i++) {
        bool all = b->full || i == b->n_threads - 1;
        char *command = xasprintf("'%s' tests/bench/%s %s --threads %d --shapes %s --variants %s --repeat %d --seconds %g "
                                  "--match '%s'%s%s >>'%s/peer.jsonl'",
                                  python, script, options, b->threads[i],
                                  b->shapes ? b->shapes : all ? "15m,135m" : "15m", b->dtypes, b->repeat, b->seconds,
                                  b->match ? b->match : "", b->full ? " --full" : "", b->quick ? " --quick" : "", b->out);
        fflush(NULL);
        int status = system(command);
        free(command);
        if (status != 0)
            return error_set(ERR_UNAVAILABLE, "%s: %s failed; what it said stands above", python, script);
    }
    return 0;
}

static int run_peers(const Bench *b, const char *section)
{
    int rc = 0;
    char *torch = xasprintf("--device '%s' --only %s --compile", b->device_name, section);
    char *llama = xasprintf("--checkout '%s'", b->llama ? b->llama : "");
    if (b->torch)
        TRY(run_peer(b, "peer_torch.py", torch));
    if (b->llama && strcmp(section, "decode") == 0)
        TRY(run_peer(b, "peer_llama.py", llama));
fail:
    free(torch);
    free(llama);
    return rc;
}

static int measure(Bench *b)
{
    int rc = describe(b);
    if (rc < 0)
        return rc;
    rows_print_header();
    for (int i = 0; i < N_SECTIONS; i++) {
        if (b->only && !listed(b->only, sections[i].name))
            continue;
        sections[i].run(b);
        if (sections[i].has_peer && (rc = run_peers(b, sections[i].name)) < 0)
            return rc;
    }
    rows_print_targets(&b->rows);
    return 0;
}

static int write_results(const Bench *b)
{
    char *json = path_join(b->out, "bench.jsonl"), *svg = path_join(b->out, "bench.svg");
    int rc = 0;
    TRY(rows_write(&b->rows, json));
    TRY(rows_write_svg(&b->rows, svg));
    printf("wrote %s and %s\n", json, svg);
fail:
    free(json);
    free(svg);
    return rc;
}

static int run(Bench *b, const Files *f)
{
    int rc = 0;
    char *peer = path_join(b->out, "peer.jsonl");
    if (f->from) {
        rows_print_header();
        TRY(rows_read(&b->rows, f->from));
        rows_print_targets(&b->rows);
    } else {
        TRY(dir_make(b->out));
        if (b->torch || b->llama)
            TRY(file_write_atomic(peer, "", 0));
        TRY(measure(b));
        TRY(write_results(b));
    }
    if (f->peer)
        TRY(rows_print_peer(&b->rows, f->peer));
    if (b->torch || b->llama)
        TRY(rows_print_peer(&b->rows, peer));
fail:
    free(peer);
    return rc;
}

int main(int argc, char **argv)
{
    Bench b = {.device_name = "cpu", .out = "build", .repeat = 5};
    Files f = {0};
    if (argc == 2 && strcmp(argv[1], "--help") == 0)
        return fputs(usage_text, stdout) < 0;
    const char *slash = strrchr(argv[0], '/');
    char *test_ops = xasprintf("%.*stest_ops", slash ? (int)(slash + 1 - argv[0]) : 0, argv[0]);
    b.self = argv[0];
    b.test_ops = test_ops;
    int rc = read_arguments(&b, &f, argc, argv);
    rc = rc < 0 ? rc : b.point ? growth_child(&b) : run(&b, &f);
    if (rc < 0)
        fprintf(stderr, "bench: %s\n", error_text());
    rows_free(&b.rows);
    free(test_ops);
    return -rc;
}
