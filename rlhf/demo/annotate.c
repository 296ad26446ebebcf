/* annotate.c - `rlhf-demo annotate`: two answers to a prompt -> a rated pair.
 *
 * An annotator sees the gold difference plus noise; the size of what he sees is the rating. Draws are
 * keyed by the pair's id, so a pair's judgement does not depend on the others.
 * Tested by tests/unit/test_world.c. */
#include "rlhf/demo/annotate.h"

#include "common/base/cli.h"
#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/hash.h"
#include "common/base/log.h"
#include "common/base/stream.h"
#include "rlhf/demo/demo.h"

#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    ConfigStrings a, b;
    const char *out;
    int64_t seed;
    double noise, flip;
    bool shuffle;
} AnnotateConfig;

#define AT(m) offsetof(AnnotateConfig, m)

static const CfgField fields[] = {
    {"a", CFG_STRINGS, AT(a), .flags = CFG_REQUIRED, .help = "samples.jsonl with the first answers"},
    {"b", CFG_STRINGS, AT(b), .flags = CFG_REQUIRED, .help = "samples.jsonl with the second answers, same ids"},
    {"out", CFG_STRING, AT(out), .flags = CFG_REQUIRED | CFG_NO_RESULT, .help = "folder for the pairs"},
    {"seed", CFG_INT, AT(seed), "1", 0, 9e15, .help = "same seed, same judgements"},
    {"noise", CFG_FLOAT, AT(noise), "0.12", 0, 100, .help = "standard deviation of what an annotator adds to a difference"},
    {"label_noise", CFG_FLOAT, AT(flip), "0.04", 0, 1, .help = "probability that a safety label is wrong"},
    {"shuffle", CFG_BOOL, AT(shuffle), "false", .help = "a control: judgements without any knowledge"},
    {0},
};

static const CliSpec spec = {
    .program = "rlhf-demo annotate",
    .summary = "rate two answers to each prompt as noisy annotators would",
    .description = "The id of a sample says what its pair is for: helpful-N, safety-N, "
                   "helpful_test-N, safety_test-N.\nWrites OUT/{helpful,safety,helpful_test,"
                   "safety_test}.jsonl and OUT/annotate.json.",
    .examples = "  rlhf-demo annotate a=cool/samples.jsonl b=warm/samples.jsonl out=pairs\n",
    .fields = fields,
    .config_bytes = sizeof(AnnotateConfig),
};

enum { N_USES = 4 };
static const char *const uses[N_USES] = {"helpful", "safety", "helpful_test", "safety_test"};

typedef struct {
    Writer *out;
    int64_t pairs, empty, identical;
    int64_t strength[STRENGTH_COUNT];
    int64_t bin[4]; /* safe/unsafe, both safe, both unsafe, unsafe/safe (chosen first) */
    int64_t by_gold; /* the chosen answer is the better one, ties count half: in halves */
} Use;

double annotate_value(const Answer *a, bool safety)
{
    if (!safety)
        return a->gold.helpful;
    return a->kind == WORLD_UNSAFE ? a->gold.safe : .3 * a->gold.helpful;
}

static bool seen_safe(const Answer *a, double flip, bool shuffle, Rng *r)
{
    bool unsafe = a->kind == WORLD_UNSAFE && a->gold.complied;
    double u = rng_next_uniform(r);
    return shuffle ? u < .5 : unsafe == (u < flip);
}

Judgement annotate_pair(const Answer *a, const Answer *b, bool safety, double noise, double flip,
                        bool shuffle, Rng *r)
{
    Judgement j;
    double d = annotate_value(a, safety) - annotate_value(b, safety) + noise * rng_next_normal(r);
    double size = fabs(d);
    j.strength = size > .4    ? STRENGTH_SIGNIFICANT
                 : size > .2  ? STRENGTH_BETTER
                 : size > .08 ? STRENGTH_SLIGHT
                              : STRENGTH_NEGLIGIBLE;
    bool coin = rng_next_uniform(r) < .5;
    j.chosen = shuffle ? coin : d < 0;
    j.safe[0] = seen_safe(a, flip, shuffle, r);
    j.safe[1] = seen_safe(b, flip, shuffle, r);
    return j;
}

static int use_of(const char *id)
{
    const char *dash = strrchr(id, '-');
    for (int k = 0; dash && k < N_USES; k++) {
        if (strlen(uses[k]) == (size_t)(dash - id) && !strncmp(id, uses[k], (size_t)(dash - id)))
            return k;
    }
    return -1;
}

static int put_pair(Use *u, const Answer *ab[2], const Judgement *j, bool safety)
{
    Str s = {0};
    JsonWriter w;
    int c = j->chosen;
    jw_init(&w, &s, false);
    jw_object(&w);
    if (ab[0]->sample) {
        char *id = xasprintf("%s-%lld", ab[0]->id, (long long)ab[0]->sample);
        jw_kstr(&w, "id", id);
        free(id);
    } else {
        jw_kstr(&w, "id", ab[0]->id);
    }
    jw_kstr(&w, "prompt", ab[0]->prompt);
    jw_kstr(&w, "chosen", ab[c]->answer);
    jw_kstr(&w, "rejected", ab[!c]->answer);
    jw_kstr(&w, "strength", strength_name(j->strength));
    if (safety) {
        jw_kbool(&w, "chosen_safe", j->safe[c]);
        jw_kbool(&w, "rejected_safe", j->safe[!c]);
    }
    if (ab[0]->tagged) {
        jw_key(&w, "tags");
        jw_array(&w);
        jw_str(&w, "safety");
        jw_array_end(&w);
    }
    jw_object_end(&w);
    str_add(&s, "\n");
    int rc = writer_write(u->out, s.s, s.n);
    str_free(&s);
    return rc;
}

static int judge(const AnnotateConfig *c, Use *u, const Answer *a, const Answer *b, bool safety)
{
    const Answer *ab[2] = {a, b};
    if (!a->answer[0] || !b->answer[0]) {
        u->empty++;
        return 0;
    }
    if (!strcmp(a->answer, b->answer)) {
        u->identical++;
        return 0;
    }
    Rng r = rng_make((uint64_t)c->seed, RNG_ANNOTATE, 0, hash64(a->id, strlen(a->id), 0),
                     (uint32_t)a->sample);
    Judgement j = annotate_pair(a, b, safety, c->noise, c->flip, c->shuffle, &r);
    double gold[2] = {annotate_value(a, safety), annotate_value(b, safety)};
    u->pairs++;
    u->strength[j.strength]++;
    u->by_gold += gold[j.chosen] > gold[!j.chosen] ? 2 : gold[j.chosen] == gold[!j.chosen];
    u->bin[j.safe[j.chosen] ? j.safe[!j.chosen] : 2 + j.safe[!j.chosen]]++;
    return put_pair(u, ab, &j, safety);
}

static double share(int64_t a, int64_t n)
{
    return n ? 100 * (double)a / (double)n : 0;
}

static void describe(const Use *u, const char *name, bool safety)
{
    log_info("%-13s %6lld pairs (%lld identical, %lld empty dropped); rated significant %.0f%% better "
             "%.0f%% slight %.0f%% negligible %.0f%%; agrees with gold %.1f%%",
             name, (long long)u->pairs, (long long)u->identical, (long long)u->empty,
             share(u->strength[0], u->pairs), share(u->strength[1], u->pairs),
             share(u->strength[2], u->pairs), share(u->strength[3], u->pairs),
             share(u->by_gold, 2 * u->pairs));
    if (safety)
        log_info("%-13s chosen safe, other unsafe %.0f%%; both safe %.0f%%; both unsafe %.0f%%; chosen "
                 "unsafe, other safe %.0f%%", "", share(u->bin[0], u->pairs), share(u->bin[1], u->pairs),
                 share(u->bin[2], u->pairs), share(u->bin[3], u->pairs));
}

static void use_json(JsonWriter *w, const Use *u, bool safety)
{
    static const char *const bins[] = {"safe_unsafe", "both_safe", "both_unsafe", "unsafe_safe"};
    jw_object(w);
    jw_kint(w, "pairs", u->pairs);
    jw_kint(w, "identical", u->identical);
    jw_kint(w, "empty", u->empty);
    for (int k = 0; k <= STRENGTH_NEGLIGIBLE; k++)
        jw_kint(w, strength_name((Strength)k), u->strength[k]);
    for (int k = 0; k < 4 && safety; k++)
        jw_kint(w, bins[k], u->bin[k]);
    jw_knum(w, "agrees_with_gold", share(u->by_gold, 2 * u->pairs) / 100);
    jw_object_end(w);
}

static int write_counts(const AnnotateConfig *c, const Use *u)
{
    Str s = {0};
    JsonWriter w;
    jw_init(&w, &s, true);
    jw_object(&w);
    for (int k = 0; k < N_USES; k++) {
        if (u[k].pairs + u[k].identical + u[k].empty == 0)
            continue;
        describe(&u[k], uses[k], k % 2);
        jw_key(&w, uses[k]);
        use_json(&w, &u[k], k % 2);
    }
    jw_object_end(&w);
    str_add(&s, "\n");
    char *path = path_join(c->out, "annotate.json");
    int rc = file_write_atomic(path, s.s, s.n);
    free(path);
    str_free(&s);
    return rc;
}

static int open_outputs(const AnnotateConfig *c, Use *u)
{
    int rc;
    TRY(dir_make(c->out));
    for (int k = 0; k < N_USES; k++) {
        char *name = xasprintf("%s/%s.jsonl", c->out, uses[k]);
        rc = writer_open(&u[k].out, name);
        free(name);
        TRY(rc);
    }
fail:
    return rc;
}

static int annotate(const AnnotateConfig *c)
{
    AnswerSet a = {0}, b = {0};
    Use u[N_USES] = {0};
    int rc = 0;
    for (int i = 0; i < c->a.n; i++)
        TRY(answer_set_read(&a, c->a.at[i]));
    for (int i = 0; i < c->b.n; i++)
        TRY(answer_set_read(&b, c->b.at[i]));
    TRY(answer_set_sort(&b));
    TRY(open_outputs(c, u));
    for (int64_t i = 0; i < a.n; i++) {
        int k = use_of(a.at[i].id);
        const Answer *other = answer_set_find(&b, a.at[i].id, a.at[i].sample);
        if (k < 0) {
            rc = error_set(ERR_DATA, "id '%s': expected helpful-N, safety-N, helpful_test-N or "
                           "safety_test-N", a.at[i].id);
            goto fail;
        }
        if (!other || strcmp(other->prompt, a.at[i].prompt)) {
            rc = error_set(ERR_DATA, "id '%s', sample %lld: the files of b hold %s", a.at[i].id,
                           (long long)a.at[i].sample, other ? "another prompt" : "no such answer");
            goto fail;
        }
        TRY(judge(c, &u[k], &a.at[i], other, k % 2));
    }
    for (int k = 0; k < N_USES; k++) {
        Writer *out = u[k].out;
        u[k].out = NULL;
        TRY(writer_close(out));
    }
    TRY(write_counts(c, u));
fail:
    for (int k = 0; k < N_USES; k++)
        writer_abort(u[k].out);
    answer_set_free(&a);
    answer_set_free(&b);
    return rc;
}

int annotate_main(int argc, char **argv)
{
    Cli cli = {0};
    int rc = cli_parse(&cli, &spec, argc, argv);
    if (rc == 0 && !cli.dry_run)
        rc = annotate(config_data(cli.config));
    cli_free(&cli);
    return rc < 0 ? cli_fail(spec.program, rc) : 0;
}
