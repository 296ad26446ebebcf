/* world_files.c - `rlhf-demo world OUT`: everything a round starts from.
 *
 *   OUT/model/                 config.json and tokenizer of the untrained model
 *   OUT/base.jsonl             {"text": " prompt = answer"} for pre-training
 *   OUT/sft.jsonl              {"prompt", "completion"}
 *   OUT/prompts_pairs.jsonl    what annotators compare: ids "helpful-N", "safety-N" and, with
 *                              held-out prompts, "helpful_test-N", "safety_test-N"
 *   OUT/prompts_rejection.jsonl, prompts_ppo.jsonl, prompts_eval.jsonl (held out)
 *
 * Every record is drawn from (seed, file, index), so a longer file begins with the shorter one.
 * Tested by tests/unit/test_world.c. */
#include "rlhf/demo/world_files.h"

#include "common/base/cli.h"
#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/json.h"
#include "common/base/log.h"
#include "common/base/stream.h"
#include "rlhf/demo/demo.h"
#include "rlhf/demo/gold.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#define AT(m) offsetof(WorldConfig, m)

const CfgField world_fields[] = {
    {"out", CFG_STRING, AT(out), "", .flags = CFG_NO_RESULT, .help = "folder to write; or give it as argument"},
    {"seed", CFG_INT, AT(seed), "1", 0, 9e15, .help = "same seed, same files"},
    {"n_base", CFG_INT, AT(n_base), "190000", 0, 1e9, .help = "documents of base.jsonl"},
    {"n_sft", CFG_INT, AT(n_sft), "2048", 0, 1e8, .help = "demonstrations"},
    {"n_helpful", CFG_INT, AT(n_helpful), "20000", 0, 1e8, .help = "prompts of helpfulness pairs"},
    {"n_safety", CFG_INT, AT(n_safety), "6000", 0, 1e8, .help = "prompts of safety pairs"},
    {"n_test", CFG_INT, AT(n_test), "1500", 0, 1e8, .help = "held-out prompts of each kind of pair"},
    {"n_rejection", CFG_INT, AT(n_rejection), "1000", 0, 1e8, .help = "prompts of rejection sampling"},
    {"n_ppo", CFG_INT, AT(n_ppo), "10240", 0, 1e8, .help = "prompts of PPO"},
    {"n_eval", CFG_INT, AT(n_eval), "1000", 0, 1e8, .help = "held-out prompts of the evaluation"},
    {"hidden_size", CFG_INT, AT(hidden), "64", 8, 4096, .help = "of the model; heads have 16 channels"},
    {"layers", CFG_INT, AT(layers), "3", 1, 64, .help = "of the model"},
    {0},
};

enum { N_MARKERS = 6, UNK = 0, BOS = 1, EOS = 2, PAD = 3 };
static const char *const markers[N_MARKERS] = {"<unk>", "<s>", "</s>", "<pad>", "\n\nHuman:",
                                               "\n\nAssistant:"};
static bool is_special(int marker)
{
    return marker <= PAD;
}

/* ---- model folder */

static int write_json(const char *dir, const char *name, Str *s)
{
    char *path = path_join(dir, name);
    str_add(s, "\n");
    int rc = file_write_atomic(path, s->s, s->n);
    free(path);
    str_clear(s);
    return rc;
}

static void config_json(JsonWriter *w, const WorldConfig *c)
{
    jw_object(w);
    jw_key(w, "architectures");
    jw_array(w);
    jw_str(w, "LlamaForCausalLM");
    jw_array_end(w);
    jw_kstr(w, "model_type", "llama");
    jw_kint(w, "vocab_size", N_MARKERS + word_count());
    jw_kint(w, "hidden_size", c->hidden);
    jw_kint(w, "intermediate_size", 3 * c->hidden);
    jw_kint(w, "num_hidden_layers", c->layers);
    jw_kint(w, "num_attention_heads", c->hidden / 16 ? c->hidden / 16 : 1);
    jw_kint(w, "num_key_value_heads", c->hidden % 32 ? 1 : c->hidden / 32);
    jw_kint(w, "head_dim", 16);
    jw_kstr(w, "hidden_act", "silu");
    jw_kint(w, "max_position_embeddings", 64);
    jw_knum(w, "rms_norm_eps", 1e-5);
    jw_knum(w, "rope_theta", 10000.0);
    jw_kbool(w, "tie_word_embeddings", true);
    jw_kbool(w, "attention_bias", false);
    jw_kbool(w, "mlp_bias", false);
    jw_kint(w, "bos_token_id", BOS);
    jw_kint(w, "eos_token_id", EOS);
    jw_kint(w, "pad_token_id", PAD);
    jw_kstr(w, "torch_dtype", "float32");
    jw_object_end(w);
}

static void added_token(JsonWriter *w, int id)
{
    jw_kstr(w, "content", markers[id]);
    jw_kbool(w, "single_word", false);
    jw_kbool(w, "lstrip", false);
    jw_kbool(w, "rstrip", false);
    jw_kbool(w, "normalized", false);
    jw_kbool(w, "special", is_special(id));
}

static void metaspace(JsonWriter *w, const char *key)
{
    jw_key(w, key);
    jw_object(w);
    jw_kstr(w, "type", "Metaspace");
    jw_kstr(w, "replacement", "\xe2\x96\x81"); /* U+2581 */
    jw_kstr(w, "prepend_scheme", "never");
    jw_kbool(w, "split", true);
    jw_object_end(w);
}

/* BPE without merges over whole words: " copy" is one token because ignore_merges takes a word of
 * the vocabulary as it is. */
static void tokenizer_json(JsonWriter *w)
{
    jw_object(w);
    jw_kstr(w, "version", "1.0");
    jw_key(w, "truncation");
    jw_null(w);
    jw_key(w, "padding");
    jw_null(w);
    jw_key(w, "added_tokens");
    jw_array(w);
    for (int i = 0; i < N_MARKERS; i++) {
        jw_object(w);
        jw_kint(w, "id", i);
        added_token(w, i);
        jw_object_end(w);
    }
    jw_array_end(w);
    jw_key(w, "normalizer");
    jw_null(w);
    metaspace(w, "pre_tokenizer");
    jw_key(w, "post_processor");
    jw_null(w);
    metaspace(w, "decoder");
    jw_key(w, "model");
    jw_object(w);
    jw_kstr(w, "type", "BPE");
    jw_key(w, "dropout");
    jw_null(w);
    jw_kstr(w, "unk_token", markers[UNK]);
    jw_key(w, "continuing_subword_prefix");
    jw_null(w);
    jw_key(w, "end_of_word_suffix");
    jw_null(w);
    jw_kbool(w, "fuse_unk", false);
    jw_kbool(w, "byte_fallback", false);
    jw_kbool(w, "ignore_merges", true);
    jw_key(w, "vocab");
    jw_object(w);
    for (int i = 0; i < N_MARKERS; i++)
        jw_kint(w, markers[i], i);
    for (int i = 0; i < word_count(); i++) {
        char piece[32];
        snprintf(piece, sizeof piece, "\xe2\x96\x81%s", word_text(i));
        jw_kint(w, piece, N_MARKERS + i);
    }
    jw_object_end(w);
    jw_key(w, "merges");
    jw_array(w);
    jw_array_end(w);
    jw_object_end(w);
    jw_object_end(w);
}

static void tokenizer_config_json(JsonWriter *w)
{
    jw_object(w);
    jw_kstr(w, "tokenizer_class", "PreTrainedTokenizerFast");
    jw_kstr(w, "bos_token", markers[BOS]);
    jw_kstr(w, "eos_token", markers[EOS]);
    jw_kstr(w, "unk_token", markers[UNK]);
    jw_kstr(w, "pad_token", markers[PAD]);
    jw_kint(w, "model_max_length", 64);
    jw_kbool(w, "clean_up_tokenization_spaces", false);
    jw_key(w, "added_tokens_decoder");
    jw_object(w);
    for (int i = 0; i < N_MARKERS; i++) {
        char id[8];
        snprintf(id, sizeof id, "%d", i);
        jw_key(w, id);
        jw_object(w);
        added_token(w, i);
        jw_object_end(w);
    }
    jw_object_end(w);
    jw_kstr(w, "chat_template",
            "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'assistant' %}{{ '\\n\\nAssistant: ' + "
            "m['content'] + eos_token }}{% else %}{{ '\\n\\nHuman: ' + m['content'] }}{% endif %}"
            "{% endfor %}{% if add_generation_prompt %}{{ '\\n\\nAssistant:' }}{% endif %}");
    jw_object_end(w);
}

static int write_model(const WorldConfig *c)
{
    char *dir = path_join(c->out, "model");
    Str s = {0};
    JsonWriter w;
    int rc;
    TRY(dir_make(dir));
    jw_init(&w, &s, true);
    config_json(&w, c);
    TRY(write_json(dir, "config.json", &s));
    jw_init(&w, &s, true);
    tokenizer_json(&w);
    TRY(write_json(dir, "tokenizer.json", &s));
    jw_init(&w, &s, true);
    tokenizer_config_json(&w);
    TRY(write_json(dir, "tokenizer_config.json", &s));
fail:
    str_free(&s);
    free(dir);
    return rc;
}

/* ---- records */

typedef enum { FILE_BASE = 1, FILE_SFT, FILE_HELPFUL, FILE_SAFETY, FILE_HELPFUL_TEST,
               FILE_SAFETY_TEST, FILE_REJECTION, FILE_PPO, FILE_EVAL } WorldFile;

typedef struct {
    const WorldConfig *c;
    Writer *out;
    Str line, text;
    int64_t words, n;         /* of the file so far */
    int64_t kinds[WORLD_KINDS];
    double gold_sum[2];       /* of demonstrations: others, unsafe */
    int64_t gold_n[2];
} Files;

/* The kind of the i-th prompt of n. The evaluation has exact shares, so that seeds compare; the
 * kinds of pairs follow what the annotators of that kind are shown. */
static WorldKind kind_of(WorldFile file, int64_t i, int64_t n, Rng *r)
{
    double u;
    switch (file) {
    case FILE_BASE: /* more tasks: they are what takes long to learn */
        return rng_next_uniform(r) < .4 ? world_draw_task(r) : world_draw_kind(r);
    case FILE_SAFETY:
    case FILE_SAFETY_TEST:
        u = rng_next_uniform(r);
        return u < .7 ? WORLD_UNSAFE : u < .9 ? WORLD_LOOK : world_draw_task(r);
    case FILE_EVAL:
        u = (i + .5) / n;
        return u < .60 ? (WorldKind)(i % WORLD_PLAIN)
               : u < .68 ? WORLD_PLAIN
               : u < .80 ? WORLD_LOOK
                         : WORLD_UNSAFE;
    default:
        return world_draw_kind(r);
    }
}

static bool wanted(WorldFile file, const WorldPrompt *p)
{
    bool held_out = file == FILE_HELPFUL_TEST || file == FILE_SAFETY_TEST || file == FILE_EVAL;
    if (world_held_out(p) != held_out)
        return false;
    if (file == FILE_HELPFUL || file == FILE_HELPFUL_TEST)
        return !world_tagged(p);
    if (file == FILE_SAFETY || file == FILE_SAFETY_TEST)
        return world_tagged(p) || p->kind != WORLD_UNSAFE;
    return true;
}

static void draw_prompt(WorldPrompt *p, const WorldConfig *c, WorldFile file, int64_t i, int64_t n,
                        Rng *r)
{
    *r = rng_make((uint64_t)c->seed, RNG_WORLD, file, (uint64_t)i, 0);
    WorldKind kind = kind_of(file, i, n, r);
    do
        world_draw_prompt(p, kind, r);
    while (!wanted(file, p));
}

static int put_line(Files *f)
{
    str_add(&f->line, "\n");
    int rc = writer_write(f->out, f->line.s, f->line.n);
    str_clear(&f->line);
    return rc;
}

/* "text" of base documents, prompt and completion of demonstrations. */
static int put_demonstration(Files *f, WorldFile file, int64_t i, int64_t n)
{
    WorldPrompt p;
    Phrase answer;
    Gold g;
    Rng r;
    JsonWriter w;
    draw_prompt(&p, f->c, file, i, n, &r);
    world_demonstrate(&answer, &p, file == FILE_BASE ? &world_quality_base : &world_quality_sft, &r);
    gold_score(&g, &p, &answer, true);
    bool unsafe = p.kind == WORLD_UNSAFE;
    f->gold_sum[unsafe] += g.gold;
    f->gold_n[unsafe]++;
    f->words += p.text.n + answer.n;
    f->kinds[p.kind]++;
    jw_init(&w, &f->line, false);
    jw_object(&w);
    str_clear(&f->text);
    if (file == FILE_BASE) {
        str_add(&f->text, " ");
        phrase_write(&f->text, &p.text);
        str_add(&f->text, " = ");
        phrase_write(&f->text, &answer);
        jw_kstr(&w, "text", str_get(&f->text));
    } else {
        phrase_write(&f->text, &p.text);
        jw_kstr(&w, "prompt", str_get(&f->text));
        str_clear(&f->text);
        phrase_write(&f->text, &answer);
        jw_kstr(&w, "completion", str_get(&f->text));
    }
    jw_object_end(&w);
    return put_line(f);
}

static int put_prompt(Files *f, WorldFile file, const char *id_prefix, int64_t i, int64_t n)
{
    WorldPrompt p;
    Rng r;
    JsonWriter w;
    draw_prompt(&p, f->c, file, i, n, &r);
    f->words += p.text.n;
    f->kinds[p.kind]++;
    jw_init(&w, &f->line, false);
    jw_object(&w);
    str_clear(&f->text);
    str_addf(&f->text, "%s-%lld", id_prefix, (long long)i);
    jw_kstr(&w, "id", str_get(&f->text));
    str_clear(&f->text);
    phrase_write(&f->text, &p.text);
    jw_kstr(&w, "prompt", str_get(&f->text));
    if (world_tagged(&p)) {
        jw_key(&w, "tags");
        jw_array(&w);
        jw_str(&w, "safety");
        jw_array_end(&w);
    }
    jw_key(&w, "meta");
    jw_object(&w);
    jw_kstr(&w, "kind", world_kind_name(p.kind));
    jw_kstr(&w, "style", world_style_name(p.style));
    jw_object_end(&w);
    jw_object_end(&w);
    return put_line(f);
}

static void describe(const Files *f, const char *name)
{
    int64_t tasks = 0;
    for (int k = 0; k < WORLD_PLAIN; k++)
        tasks += f->kinds[k];
    double n = f->n ? (double)f->n : 1;
    char gold[64] = "";
    if (f->gold_n[0] + f->gold_n[1])
        snprintf(gold, sizeof gold, ", gold %.2f (unsafe %.2f)",
                 f->gold_sum[0] / (double)(f->gold_n[0] + !f->gold_n[0]),
                 f->gold_sum[1] / (double)(f->gold_n[1] + !f->gold_n[1]));
    log_info("%-24s %7lld records, %4.1f words each; task %.0f%% plain %.0f%% look-alike %.0f%% "
             "unsafe %.0f%%%s",
             name, (long long)f->n, (double)f->words / n, 100 * (double)tasks / n,
             100 * (double)f->kinds[WORLD_PLAIN] / n, 100 * (double)f->kinds[WORLD_LOOK] / n,
             100 * (double)f->kinds[WORLD_UNSAFE] / n, gold);
}

typedef struct {
    WorldFile file;
    const char *id_prefix; /* NULL: demonstrations */
    int64_t n;
} Part;

static int write_file(const WorldConfig *c, const char *name, const Part *parts, int n_parts)
{
    Files f = {.c = c};
    char *path = path_join(c->out, name);
    int rc;
    TRY(writer_open(&f.out, path));
    for (int k = 0; k < n_parts; k++) {
        for (int64_t i = 0; i < parts[k].n; i++, f.n++) {
            if (parts[k].id_prefix)
                TRY(put_prompt(&f, parts[k].file, parts[k].id_prefix, i, parts[k].n));
            else
                TRY(put_demonstration(&f, parts[k].file, i, parts[k].n));
        }
    }
    Writer *out = f.out;
    f.out = NULL;
    TRY(writer_close(out));
    if (f.n)
        describe(&f, name);
fail:
    writer_abort(f.out);
    str_free(&f.line);
    str_free(&f.text);
    free(path);
    return rc;
}

int world_files_write(const WorldConfig *c)
{
    int rc;
    if (c->hidden % 16)
        return error_set(ERR_CONFIG, "hidden_size %lld: must be a multiple of 16", (long long)c->hidden);
    TRY(dir_make(c->out));
    TRY(write_model(c));
    TRY(write_file(c, "base.jsonl", &(Part){FILE_BASE, NULL, c->n_base}, 1));
    TRY(write_file(c, "sft.jsonl", &(Part){FILE_SFT, NULL, c->n_sft}, 1));
    Part pairs[] = {{FILE_HELPFUL, "helpful", c->n_helpful},
                    {FILE_SAFETY, "safety", c->n_safety},
                    {FILE_HELPFUL_TEST, "helpful_test", c->n_test},
                    {FILE_SAFETY_TEST, "safety_test", c->n_test}};
    TRY(write_file(c, "prompts_pairs.jsonl", pairs, 4));
    TRY(write_file(c, "prompts_rejection.jsonl",
                   &(Part){FILE_REJECTION, "rejection", c->n_rejection}, 1));
    TRY(write_file(c, "prompts_ppo.jsonl", &(Part){FILE_PPO, "ppo", c->n_ppo}, 1));
    TRY(write_file(c, "prompts_eval.jsonl", &(Part){FILE_EVAL, "eval", c->n_eval}, 1));
fail:
    return rc;
}

static const CliSpec spec = {
    .program = "rlhf-demo world",
    .summary = "write a generated world: model folder, texts, prompts",
    .usage = "[OUT] [--set KEY=VALUE ...]",
    .examples = "  rlhf-demo world runs/demo/world --set seed=2\n",
    .fields = world_fields,
    .config_bytes = sizeof(WorldConfig),
    .max_args = 1,
};

int world_main(int argc, char **argv)
{
    Cli cli = {0};
    int rc = cli_parse(&cli, &spec, argc, argv);
    if (rc == 0 && !cli.dry_run) {
        WorldConfig *c = config_data(cli.config);
        if (cli.n_args)
            c->out = cli.args[0];
        rc = c->out[0] ? world_files_write(c)
                       : error_set(ERR_USAGE, "no folder to write; give one, or out=DIR");
    }
    cli_free(&cli);
    return rc < 0 ? cli_fail(spec.program, rc) : 0;
}
