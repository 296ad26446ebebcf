/* test_generate.c - the sampler is the trainer: its log-probabilities are lm_head_run's bit for
 * bit, and neither slots, chunks, threads nor the company of other prompts change an answer. With
 * stories260k at hand: greedy texts and losses of another implementation. */
#include "tests/unit/model_fixture.h"

#include "common/base/file.h"
#include "common/generate/generate.h"
#include "common/generate/logp.h"
#include "common/text/tokenizer.h"

#include <math.h>
#include <stdio.h>

static const ModelConfig config = {.architecture = "Llama",
                                   .head = HEAD_LM,
                                   .C = 48,
                                   .F = 72,
                                   .V = 91,
                                   .L = 2,
                                   .H = 4,
                                   .K = 2,
                                   .D = 12,
                                   .norm_eps = 1e-5,
                                   .rope_theta = 10000,
                                   .tied = true,
                                   .max_position = 160,
                                   .bos = 1,
                                   .pad = -1,
                                   .eos = {2},
                                   .n_eos = 1};

enum { N = 23, MAX_NEW = 40, LENGTH = 120 };

typedef struct {
    int32_t prompt[N][LENGTH];
    GenRequest req[N];
    int32_t ids[N][MAX_NEW];
    float logp[N][MAX_NEW];
    GenResult out[N];
} Work;

static void requests_make(Work *w)
{
    Rng r = rng_make(11, RNG_TEST, 0, 0, 0);
    for (int i = 0; i < N; i++) {
        int n = i == 0 ? LENGTH - 1
                       : 1 + (int)rng_next_below(&r, 70); /* the first leaves room for one */
        random_ids(w->prompt[i], n, config.V, (uint64_t)(i / 2)); /* pairs share a beginning */
        w->req[i] = (GenRequest){w->prompt[i], n, (uint64_t)(i / 2), (uint32_t)(i % 2), 0};
        w->out[i] = (GenResult){.ids = w->ids[i], .logp = w->logp[i]};
    }
}

typedef struct {
    Generator *g;
    Arena device, host;
} Gen;

static void gen_open(Gen *x, const Fixture *f, int slots, int length, int rows)
{
    x->g = generator_new(&f->m, slots, length, rows);
    arena_init(&x->device, f->dev, ARENA_DEVICE, "rollout");
    arena_init(&x->host, f->dev, ARENA_HOST, "host");
    for (int pass = 0; pass < 2; pass++) {
        generator_alloc(x->g, &x->device, &x->host);
        if (!pass) {
            assert_int_equal(arena_commit(&x->device), 0);
            assert_int_equal(arena_commit(&x->host), 0);
        }
    }
}

static void gen_close(Gen *x)
{
    generator_free(x->g);
    arena_free(&x->device);
    arena_free(&x->host);
}

static int generate_with(Fixture *f, Work *w, int slots, int rows, const GenOptions *o, int64_t n,
                         const volatile int *stop)
{
    Gen x;
    gen_open(&x, f, slots, LENGTH, rows);
    int rc = generate(x.g, &f->p, w->req, n, o, w->out, stop, NULL, NULL);
    gen_close(&x);
    return rc;
}

static const int32_t stops[] = {2, 50};
static const GenOptions sampling = {.seed = 3,
                                    .round = 1,
                                    .temperature = 0.7,
                                    .max_new_tokens = MAX_NEW,
                                    .stop = stops,
                                    .n_stop = 2};

static void logp_check(Fixture *f, const Work *w, double temperature)
{
    for (int i = 0; i < N; i++) {
        int32_t ids[LENGTH], starts[2] = {0};
        const GenRequest *q = &w->req[i];
        const GenResult *a = &w->out[i];
        starts[1] = q->n_prompt + a->n;
        memcpy(ids, q->prompt, (size_t)q->n_prompt * sizeof *ids);
        memcpy(ids + q->n_prompt, a->ids, (size_t)a->n * sizeof *ids);
        Tensor hidden = fixture_forward(f, ids, starts, 0, 1);
        for (int t = 0; t < a->n; t++) {
            ((int32_t *)f->lm.rows.data)[t] = q->n_prompt + t - 1;
            ((int32_t *)f->lm.target.data)[t] = a->ids[t];
        }
        lm_head_run(&f->lm, &f->m, &f->p, LM_LOGP, a->n, &hidden, NULL, NULL, 1 / temperature, 0);
        assert_memory_equal(f->lm.logp.data, a->logp, (size_t)a->n * sizeof(float));
    }
}

static void sampler_is_trainer(void **state)
{
    static const double temperatures[] = {0.7, 1, 0};
    Fixture f = {.config = config, .dtype = dtype_of(state)};
    Work *w = xcalloc(1, sizeof *w);
    fixture_open(&f, NULL, 2, 160);
    requests_make(w);
    for (int i = 0; i < 3; i++) {
        GenOptions o = sampling;
        o.temperature = temperatures[i];
        assert_int_equal(generate_with(&f, w, 5, 32, &o, N, NULL), 0);
        logp_check(&f, w, temperatures[i] > 0 ? temperatures[i] : 1);
        int finished = 0;
        for (int k = 0; k < N; k++) {
            const GenResult *a = &w->out[k];
            assert_true(a->n >= 1 && a->n <= MAX_NEW && w->req[k].n_prompt + a->n <= LENGTH);
            for (int t = 0; t < a->n; t++) { /* a stop id stands at the end and nowhere else */
                bool is_stop = a->ids[t] == 2 || a->ids[t] == 50;
                assert_true(is_stop == (a->finished && t == a->n - 1));
            }
            if (!a->finished)
                assert_true(a->n == MAX_NEW || w->req[k].n_prompt + a->n == LENGTH);
            finished += a->finished;
        }
        assert_int_equal(w->out[0].n, 1);
        assert_true(i == 2 || finished > 0);
    }
    free(w);
    fixture_close(&f);
}

static void company_changes_nothing(void **state)
{
    static const struct {
        int slots, rows, threads;
    } ways[] = {{5, 32, 2}, {1, 1, 1}, {N, 500, 1}, {3, 7, 3}, {64, 10, 2}};
    Work *first = xcalloc(1, sizeof *first), *w = xcalloc(1, sizeof *w);
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        Fixture f = {.config = config, .dtype = dtype_of(state)};
        Work *to = i ? w : first;
        memset(to, 0, sizeof *to);
        fixture_open(&f, NULL, ways[i].threads, 160);
        requests_make(to);
        assert_int_equal(generate_with(&f, to, ways[i].slots, ways[i].rows, &sampling, N, NULL), 0);
        assert_memory_equal(to->ids, first->ids, sizeof to->ids);
        assert_memory_equal(to->logp, first->logp, sizeof to->logp);
        if (i == 0) { /* another sample of the same prompt, another round: other draws */
            assert_int_not_equal(first->out[4].n, 0);
            assert_memory_not_equal(first->ids[4], first->ids[5], sizeof first->ids[4]);
            GenOptions o = sampling;
            o.round = 2;
            requests_make(w);
            assert_int_equal(generate_with(&f, w, 5, 32, &o, N, NULL), 0);
            assert_memory_not_equal(w->ids, first->ids, sizeof w->ids);
        }
        fixture_close(&f);
    }
    free(first);
    free(w);
}

static void refusals_and_stop(void **state)
{
    (void)state;
    Fixture f = {.config = config};
    Work *w = xcalloc(1, sizeof *w);
    fixture_open(&f, NULL, 1, 160);
    requests_make(w);
    w->req[3].n_prompt = LENGTH;
    assert_int_equal(generate_with(&f, w, 5, 32, &sampling, N, NULL), ERR_DATA);
    assert_non_null(strstr(error_text(), "prompt 3 has 120 tokens"));
    w->req[3].n_prompt = 0;
    assert_int_equal(generate_with(&f, w, 5, 32, &sampling, N, NULL), ERR_DATA);
    w->req[3].n_prompt = 1;
    volatile int stop = 1;
    assert_int_equal(generate_with(&f, w, 5, 32, &sampling, N, &stop), 1);
    assert_int_equal(generate_with(&f, w, 5, 32, &sampling, 0, NULL), 0); /* no requests */
    free(w);
    fixture_close(&f);
}

/* ---- prompts that answers share -------------------------------------------------------------- */

enum { GROUPS = 4, K_MAX = 16, SHARED = GROUPS * K_MAX, LONG_PROMPT = 256, SHARED_NEW = 70 };

static const ModelConfig long_config = {.architecture = "Llama",
                                        .head = HEAD_LM,
                                        .C = 24,
                                        .F = 40,
                                        .V = 91,
                                        .L = 2,
                                        .H = 2,
                                        .K = 1,
                                        .D = 12,
                                        .norm_eps = 1e-5,
                                        .rope_theta = 10000,
                                        .tied = true,
                                        .max_position = LONG_PROMPT + SHARED_NEW,
                                        .bos = 1,
                                        .pad = -1,
                                        .eos = {2},
                                        .n_eos = 1};

typedef struct {
    int32_t prompt[GROUPS][LONG_PROMPT];
    GenRequest req[SHARED];
    int32_t ids[SHARED][SHARED_NEW];
    float logp[SHARED][SHARED_NEW];
    GenResult out[SHARED];
} Shared;

/* Two temperatures, two lengths: answers end at different steps, some at once. */
static const GenOptions mixed[2] = {{.seed = 3, .round = 0, .temperature = 0.7,
                                     .max_new_tokens = SHARED_NEW, .stop = stops, .n_stop = 2},
                                    {.seed = 3, .round = 1, .temperature = 1.3,
                                     .max_new_tokens = 5, .stop = stops, .n_stop = 2}};

/* GROUPS prompts of n tokens, k samples each; the last repeats the first under another pointer. */
static int shared_make(Shared *w, int n, int k)
{
    memset(w, 0, sizeof *w);
    for (int p = 0; p < GROUPS; p++)
        random_ids(w->prompt[p], n, long_config.V, (uint64_t)(p % (GROUPS - 1)));
    for (int i = 0; i < GROUPS * k; i++) {
        w->req[i] = (GenRequest){.prompt = w->prompt[i / k], .n_prompt = n,
                                 .prompt_id = (uint64_t)(i / k), .sample = (uint32_t)(i % k),
                                 .option = i % 2};
        w->out[i] = (GenResult){.ids = w->ids[i], .logp = w->logp[i]};
    }
    return GROUPS * k;
}

static void shared_prompts_change_nothing(void **state)
{
    static const int lengths[] = {1, 63, 64, 65, 200}, ks[] = {1, 3, 16}, slots[] = {1, 2, 5, 64};
    Fixture f = {.config = long_config, .dtype = dtype_of(state)};
    Shared *alone = xcalloc(1, sizeof *alone), *w = xcalloc(1, sizeof *w);
    Gen one, x[4];
    fixture_open(&f, NULL, 2, LONG_PROMPT);
    gen_open(&one, &f, 1, LONG_PROMPT, 512);
    for (int s = 0; s < 4; s++) /* prompts whole, and in pieces that end inside a page */
        gen_open(&x[s], &f, slots[s], LONG_PROMPT, s % 2 ? 50 : 512);
    for (int l = 0; l < 5; l++) {
        for (int k = 0; k < 3; k++) {
            int n = shared_make(alone, lengths[l], ks[k]), finished = 0;
            for (int i = 0; i < n; i++) {
                assert_int_equal(generate(one.g, &f.p, &alone->req[i], 1, mixed, &alone->out[i],
                                          NULL, NULL, NULL), 0);
                finished += alone->out[i].finished;
            }
            assert_true(finished > 0 || ks[k] == 1);
            for (int s = 0; s < 4; s++) {
                shared_make(w, lengths[l], ks[k]);
                assert_int_equal(generate(x[s].g, &f.p, w->req, n, mixed, w->out, NULL, NULL,
                                          NULL), 0);
                assert_memory_equal(w->ids, alone->ids, sizeof w->ids);
                assert_memory_equal(w->logp, alone->logp, sizeof w->logp);
            }
        }
    }
    for (int s = 0; s < 4; s++)
        gen_close(&x[s]);
    gen_close(&one);
    free(alone);
    free(w);
    fixture_close(&f);
}

/* The prompt once; for every other sample its last token again; every answer token but the last. */
static void a_shared_prompt_runs_once(void **state)
{
    (void)state;
    static const int slots[] = {1, 2, 5, 16, 64};
    Fixture f = {.config = long_config};
    Shared *w = xcalloc(1, sizeof *w);
    fixture_open(&f, NULL, 2, LONG_PROMPT);
    for (int s = 0; s < 5; s++) {
        Gen x;
        gen_open(&x, &f, slots[s], LONG_PROMPT + SHARED_NEW, 64);
        int64_t want = 0, answers = 0;
        for (int twice = 0; twice < 2; twice++) { /* a second call shares nothing with the first */
            shared_make(w, LONG_PROMPT, K_MAX);
            assert_int_equal(generate(x.g, &f.p, w->req, K_MAX, mixed, w->out, NULL, NULL, NULL), 0);
            for (int i = 0; i < K_MAX; i++) {
                want += w->out[i].n - 1;
                answers += w->out[i].n;
            }
            want += LONG_PROMPT + K_MAX - 1;
        }
        assert_int_equal(generator_rows(x.g), want);
        assert_true(generator_rows(x.g) <= 2 * (LONG_PROMPT + K_MAX) + answers);
        gen_close(&x);
    }
    free(w);
    fixture_close(&f);
}

/* ---- a card -------------------------------------------------------------------------------- */

/* Continuous batching on a card: prompts that answers share, two temperatures and greedy, chunks of keys,
 * slots that run out of requests. Steps as graphs, op by op, and the CPU: the same bits. */
static void graphs_change_nothing(void **state)
{
    (void)state;
    static const int slots[] = {5, 64, 1};
    static const GenOptions three[3] = {{.seed = 3, .temperature = 0.7, .max_new_tokens = 30,
                                         .stop = stops, .n_stop = 2},
                                        {.seed = 3, .round = 1, .temperature = 1.3,
                                         .max_new_tokens = 9, .stop = stops, .n_stop = 2},
                                        {.seed = 4, .temperature = 0, .max_new_tokens = 17}};
    if (!fixture_has_card())
        skip();
    enum { K = 3, LONG = 600 };
    ModelConfig longer = long_config;
    longer.max_position = LONG;
    Shared *w = xcalloc(1, sizeof *w), *first = xcalloc(1, sizeof *first);
    for (int i = 0; i < 7; i++) { /* the CPU, then slots x graphs */
        Fixture f = {.config = longer, .device = i ? "cuda" : "cpu"};
        Gen x;
        fixture_open(&f, NULL, 2, 64);
        gen_open(&x, &f, slots[(i + 1) / 2 % 3], LONG, 70);
        generator_graphs(x.g, i % 2);
        int64_t launched = generator_launches(x.g);
        for (int twice = 0; twice < 2; twice++) {
            Shared *to = i ? w : first;
            int n = shared_make(to, 60, K);
            static int32_t prompt[LONG]; /* one that grows into a second chunk */
            random_ids(prompt, LONG, longer.V, 5);
            to->req[4].prompt = prompt;
            to->req[4].n_prompt = 500;
            for (int k = 0; k < n; k++)
                to->req[k].option = k % 3;
            assert_int_equal(generate(x.g, &f.p, to->req, n, three, to->out, NULL, NULL, NULL), 0);
            assert_memory_equal(to->ids, first->ids, sizeof to->ids);
            assert_memory_equal(to->logp, first->logp, sizeof to->logp);
        }
        launched = generator_launches(x.g) - launched;
        assert_true(i % 2 ? launched > 30 : launched == 0);
        /* other weights in the same place are seen, weights in another place too */
        params_init_random(&f.p, 2);
        Shared *other = xcalloc(1, sizeof *other);
        int n = shared_make(other, 60, K);
        assert_int_equal(generate(x.g, &f.p, other->req, n, three, other->out, NULL, NULL, NULL), 0);
        assert_memory_not_equal(other->ids, first->ids, sizeof other->ids);
        free(other);
        gen_close(&x);
        fixture_close(&f);
    }
    free(first);
    free(w);
}

/* The generator's memory serves others between calls (arena_share), and they leave NaNs: in the pages too, behind
 * the last position of a slot. */
static void others_leave_no_trace(const char *device, DType dtype)
{
    Fixture f = {.config = long_config, .device = device, .dtype = dtype};
    Shared *w = xcalloc(1, sizeof *w), *first = xcalloc(1, sizeof *first);
    enum { K = 3, LENGTH_OF_PROMPT = 70 };
    Arena alone, memory, host;
    Tensor others;
    fixture_open(&f, NULL, 2, 64);
    Generator *g = generator_new(&f.m, 5, LONG_PROMPT, 50);
    arena_init(&alone, f.dev, ARENA_DEVICE, "rollout");
    arena_init(&memory, f.dev, ARENA_DEVICE, "shared");
    arena_init(&host, f.dev, ARENA_HOST, "host");
    generator_alloc(g, &alone, &host);
    const int64_t bytes = (int64_t)arena_planned(&alone);
    for (int pass = 0; pass < 2; pass++) {
        ArenaShare s = arena_share(&memory);
        arena_share_part(&s, "others");
        others = arena_rows1(&memory, DTYPE_I32, bytes / 4);
        arena_share_part(&s, "answers");
        arena_reset(&host, 0);
        generator_alloc(g, &memory, &host);
        arena_share_end(&s);
        if (!pass && (arena_commit(&memory) < 0 || arena_commit(&host) < 0))
            fail_msg("%s", error_text());
    }
    assert_int_equal(arena_high(&memory), bytes);
    for (int call = 0; call < 3; call++) {
        Shared *to = call ? w : first;
        int n = shared_make(to, LENGTH_OF_PROMPT, K);
        if (call)
            op_fill(&others, -1);
        assert_int_equal(generate(g, &f.p, to->req, n, mixed, to->out, NULL, NULL, NULL), 0);
        assert_memory_equal(to->ids, first->ids, sizeof to->ids);
        assert_memory_equal(to->logp, first->logp, sizeof to->logp);
    }
    generator_free(g);
    arena_free(&memory);
    arena_free(&host);
    free(w);
    free(first);
    fixture_close(&f);
}

static void memory_may_be_shared(void **state)
{
    others_leave_no_trace("cpu", dtype_of(state));
}

static void memory_may_be_shared_on_a_card(void **state)
{
    if (!fixture_has_card())
        skip();
    others_leave_no_trace("cuda", dtype_of(state));
}

/* 16 answers to one prompt of 256 tokens cost at most 1.3 of decoding them alone, counted in rows of the
 * model (make bench has the time), and the pages of one prompt instead of 16. */
static void a_shared_prompt_costs_little(void **state)
{
    (void)state;
    enum { ANSWERS = K_MAX, PAGES = LONG_PROMPT / KV_TILE };
    static const GenOptions o = {.seed = 3, .temperature = 1, .max_new_tokens = KV_TILE};
    Fixture f = {.config = long_config};
    Shared *w = xcalloc(1, sizeof *w);
    Gen x;
    fixture_open(&f, NULL, 2, LONG_PROMPT);
    gen_open(&x, &f, ANSWERS, LONG_PROMPT + KV_TILE, 64);
    for (int shared = 0; shared < 2; shared++) {
        int64_t before = generator_rows(x.g);
        shared_make(w, LONG_PROMPT, ANSWERS);
        for (int i = 0; i < ANSWERS; i++) {
            w->req[i].option = 0;
            w->req[i].n_prompt -= shared ? 0 : i; /* neighbours of other lengths are no group */
        }
        assert_int_equal(generate(x.g, &f.p, w->req, ANSWERS, &o, w->out, NULL, NULL, NULL), 0);
        int64_t rows = generator_rows(x.g) - before, decoding = ANSWERS * (KV_TILE - 1);
        if (shared) { /* the page of the last prompt token and that of the answer are a sample's own */
            assert_int_equal(rows, LONG_PROMPT + ANSWERS - 1 + decoding);
            assert_true(10 * rows <= 13 * decoding);
            assert_int_equal(generator_pages(x.g), PAGES - 1 + ANSWERS * 2);
        } else {
            assert_int_equal(rows, LONG_PROMPT * ANSWERS - ANSWERS * (ANSWERS - 1) / 2 + decoding);
            assert_int_equal(generator_pages(x.g), (PAGES + 1) * ANSWERS);
        }
    }
    gen_close(&x);
    free(w);
    fixture_close(&f);
}

/* ---- stories260k ---------------------------------------------------------------------------- */

#define STORIES "../shared/models/stories260k"

static bool stories_open(Fixture *f, Tokenizer **t, int max_tokens)
{
    if (!file_is_dir(STORIES))
        return false;
    if (tokenizer_open(t, STORIES) < 0)
        fail_msg("%s", error_text());
    fixture_open(f, STORIES, 2, max_tokens);
    return true;
}

static void ids_of(Tokenizer *t, const char *text, size_t n, IdList *ids)
{
    ids->n = 0;
    id_list_add(ids, tokenizer_bos(t));
    if (tokenizer_encode(t, text, n, true, ids) < 0)
        fail_msg("%s", error_text());
}

/* The file: blocks "### prompt: [TEXT] ...", then the text with its prompt, and an empty line. */
static void stories_greedy(void **state)
{
    (void)state;
    Fixture f = {0};
    Tokenizer *t;
    char *file;
    size_t n_file;
    if (!stories_open(&f, &t, 512))
        skip();
    assert_int_equal(file_read(STORIES "/reference_greedy.txt", &file, &n_file), 0);
    enum { PROMPTS = 5, NEW = 256 };
    static int32_t answers[PROMPTS][NEW];
    IdList prompt[PROMPTS] = {0};
    GenRequest req[PROMPTS];
    GenResult out[PROMPTS];
    char *at = file, *want[PROMPTS];
    for (int i = 0; i < PROMPTS; i++) {
        at = strstr(at, "### prompt: [");
        assert_non_null(at);
        at += strlen("### prompt: [");
        char *end = strchr(at, ']');
        ids_of(t, at, (size_t)(end - at), &prompt[i]);
        req[i] = (GenRequest){prompt[i].at, prompt[i].n, (uint64_t)i, 0, 0};
        out[i] = (GenResult){.ids = answers[i]};
        want[i] = strchr(end, '\n') + 1;
        at = want[i];
    }
    Gen x;
    gen_open(&x, &f, 3, 512, 64);
    int32_t stop[] = {1, 2};
    GenOptions o = {.max_new_tokens = NEW, .stop = stop, .n_stop = 2};
    assert_int_equal(generate(x.g, &f.p, req, PROMPTS, &o, out, NULL, NULL, NULL), 0);
    for (int i = 0; i < PROMPTS; i++) {
        Str text = {0};
        /* the reference makes 256 tokens after BOS, the prompt's among them */
        int n = prompt[i].n + out[i].n > NEW + 1 ? NEW + 1 - prompt[i].n : out[i].n;
        for (int k = 0; k < n; k++)
            id_list_add(&prompt[i], out[i].ids[k]);
        assert_int_equal(tokenizer_decode(t, prompt[i].at, prompt[i].n, true, &text), 0);
        char *end = strstr(want[i], "\n\n###");
        size_t len = end ? (size_t)(end - want[i]) : strlen(want[i]);
        while (len && want[i][len - 1] == '\n')
            len--;
        const char *got = str_get(&text);
        size_t got_len = strlen(got);
        while (got_len && got[got_len - 1] == '\n')
            got_len--;
        if (got_len != len || memcmp(got, want[i], len))
            fail_msg("prompt %d: \"%s\", expected \"%.*s\"", i, got, (int)len, want[i]);
        str_free(&text);
        id_list_free(&prompt[i]);
    }
    gen_close(&x);
    tokenizer_close(t);
    free(file);
    fixture_close(&f);
}

static void stories_losses(void **state)
{
    (void)state;
    /* reference_nll.txt; the file rounds to six decimals */
    static const double nll[] = {1.315989, 1.238555, 0.952234};
    static const int tokens[] = {374, 330, 223};
    static const float logits[4][8] = {
        {-6.22291F, 8.40434F, -6.22374F, -6.22254F, -6.22195F, -6.22288F, -6.22188F, -6.22342F},
        {-9.58946F, 3.84128F, -9.59053F, -9.58919F, -9.58864F, -9.59015F, -9.58848F, -9.59008F},
        {-12.14110F, 1.77625F, -12.14295F, -12.14102F, -12.14055F, -12.14258F, -12.13987F,
         -12.14181F},
        {-6.71424F, -6.05302F, -6.71502F, -6.71448F, -6.71442F, -6.71484F, -6.71501F, -6.71413F}};
    Fixture f = {0};
    Tokenizer *t;
    char *file;
    size_t n_file;
    if (!stories_open(&f, &t, 512))
        skip();
    assert_int_equal(file_read("../shared/data/text/tinystories_sample.txt", &file, &n_file), 0);
    IdList ids = {0};
    double all = 0;
    int64_t predicted = 0;
    char *at = file;
    for (int i = 0; i < 5; i++) {
        char *end = strstr(at, "<|endoftext|>");
        char *stop = end ? end : file + n_file;
        while (at < stop && (*at == '\n' || *at == ' ')) /* the reference strips the texts */
            at++;
        while (stop > at && (stop[-1] == '\n' || stop[-1] == ' '))
            stop--;
        ids_of(t, at, (size_t)(stop - at), &ids);
        int n = ids.n < 512 ? ids.n : 512;
        int32_t starts[2] = {0, n};
        Tensor hidden = fixture_forward(&f, ids.at, starts, 0, 1);
        for (int r = 0; r + 1 < n; r++) {
            ((int32_t *)f.lm.rows.data)[r] = r;
            ((int32_t *)f.lm.target.data)[r] = ids.at[r + 1];
        }
        lm_head_run(&f.lm, &f.m, &f.p, LM_LOGP, n - 1, &hidden, NULL, NULL, 1, 0);
        double sum = 0;
        for (int r = 0; r + 1 < n; r++)
            sum -= ((float *)f.lm.logp.data)[r];
        if (i < 3 && (n != tokens[i] || !(fabs(sum / (n - 1) - nll[i]) <= 1e-5)))
            fail_msg("text %d: %d tokens, mean %.6f; expected %d, %.6f", i, n, sum / (n - 1),
                     tokens[i], nll[i]);
        all += sum;
        predicted += n - 1;
        for (int r = 0; i == 0 && r < 4; r++) {
            static float row[512];
            Tensor out = tensor_make2(row, f.dev, DTYPE_F32, 1, 512),
                   x = tensor_slice(&hidden, r, 1);
            lm_head_logits(&out, &x, &f.m, &f.p);
            for (int v = 0; v < 8; v++)
                assert_true(fabs(row[v] - logits[r][v]) <= 2e-5);
        }
        at = end ? end + strlen("<|endoftext|>") : file + n_file;
    }
    assert_int_equal(predicted, 1804);
    assert_true(fabs(all / 1804 - 1.266441) <= 1e-5);
    id_list_free(&ids);
    tokenizer_close(t);
    free(file);
    fixture_close(&f);
}

/* What may follow a sequence has the log-probability that it has when it does, whatever the pack. */
static void choices_are_answers_of_one_token(void **state)
{
    enum { CHOICES = 3, SEQS = 9, LONGEST = 40 };
    static const int32_t choice[CHOICES] = {5, 80, 5};
    Fixture f = {.config = config, .dtype = dtype_of(state)};
    static int32_t ids[SEQS][CHOICES][LONGEST + 1];
    static float want[SEQS][CHOICES], got[SEQS][CHOICES];
    LogpItem answers[SEQS * CHOICES], asked[SEQS];
    fixture_open(&f, NULL, 2, 160);
    for (int i = 0; i < SEQS; i++) {
        int n = CHOICES + 4 * i;
        for (int k = 0; k < CHOICES; k++) {
            random_ids(ids[i][k], n, config.V, (uint64_t)i);
            ids[i][k][n] = choice[k];
            answers[i * CHOICES + k] = (LogpItem){ids[i][k], n + 1, n, &want[i][k]};
        }
        asked[i] = (LogpItem){ids[i][0], n, 0, got[i]};
    }
    for (int tokens = LONGEST + 1; tokens <= 160; tokens += 60) {
        LogpWork w = {0};
        Arena work, host;
        arena_init(&work, f.dev, ARENA_DEVICE, "work");
        arena_init(&host, f.dev, ARENA_HOST, "host");
        for (int pass = 0; pass < 2; pass++) {
            logp_alloc(&w, &f.m, &work, &host, tokens);
            if (!pass && (arena_commit(&work) < 0 || arena_commit(&host) < 0))
                fail_msg("%s", error_text());
        }
        logp_run(&w, &f.m, &f.p, answers, SEQS * CHOICES, 1);
        logp_choices(&w, &f.m, &f.p, asked, SEQS, choice, CHOICES);
        assert_memory_equal(want, got, sizeof want);
        assert_true(got[3][0] == got[3][2] && got[3][0] != got[3][1]);
        logp_free(&w);
        arena_free(&work);
        arena_free(&host);
    }
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sampler_is_trainer), cmocka_unit_test(company_changes_nothing),
        cmocka_unit_test(refusals_and_stop),  cmocka_unit_test(shared_prompts_change_nothing),
        cmocka_unit_test(a_shared_prompt_runs_once), cmocka_unit_test(graphs_change_nothing),
        cmocka_unit_test(memory_may_be_shared), IN_BF16(memory_may_be_shared),
        cmocka_unit_test(memory_may_be_shared_on_a_card), IN_BF16(memory_may_be_shared_on_a_card),
        cmocka_unit_test(a_shared_prompt_costs_little),
        cmocka_unit_test(choices_are_answers_of_one_token), IN_BF16(choices_are_answers_of_one_token),
        cmocka_unit_test(stories_greedy),     cmocka_unit_test(stories_losses),
        IN_BF16(sampler_is_trainer),          IN_BF16(company_changes_nothing),
        IN_BF16(shared_prompts_change_nothing),
    };
    return cmocka_run_group_tests_name("generate", tests, NULL, NULL);
}
