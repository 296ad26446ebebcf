/* stand_in.c - see stand_in.h. A record of a stand-in has the fields of every kind, so that any program
 * takes it: readers ignore what they do not ask for. Tested by tests/e2e/test_plan.sh. */
#include "rlhf/stand_in.h"

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/stream.h"
#include "common/model/hf.h"
#include "common/text/tokenizer.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    TEMPLATE_TOKENS = 6, /* of a turn's markers, which a counted prompt has beside its text */
    WORDS_TRIED = 64,
};

int stand_ins_open(StandIns *s)
{
    memset(s, 0, sizeof *s);
    s->fraction = 1;
    s->dir = xasprintf("/tmp/rlhf-plan.%ld.XXXXXX", (long)getpid());
    if (mkdtemp(s->dir))
        return 0;
    int rc = error_set(ERR_CANTCREATE, "%s: cannot be made: %s", s->dir, strerror(errno));
    free(s->dir);
    s->dir = NULL;
    return rc;
}

void stand_ins_close(StandIns *s)
{
    for (int i = 0; i < s->n; i++) {
        void *const owned[] = {s->at[i].path, s->at[i].stage, s->at[i].stand_in, s->at[i].base};
        for (size_t k = 0; k < sizeof owned / sizeof *owned; k++)
            free(owned[k]);
    }
    free(s->at);
    free(s->text);
    if (s->dir)
        (void)dir_remove(s->dir);
    free(s->dir);
    memset(s, 0, sizeof *s);
}

void stand_ins_begin(StandIns *s, double fraction)
{
    s->fraction = fraction;
    s->records = s->in_records = s->in_prompt = s->in_answer = 0;
    s->approx = false;
    s->missing = s->missing_stage = NULL;
    s->rc = 0;
}

/* ---- what is made ---- */

static Made *add(StandIns *s, MadeKind kind, const char *path, const char *stage)
{
    int i = VEC_GROW(s->at, s->n, s->cap);
    s->at[i] = (Made){.kind = kind, .path = xstrdup(path), .stage = xstrdup(stage)};
    return &s->at[i];
}

static Made *find(const StandIns *s, const char *path)
{
    for (int i = s->n - 1; i >= 0; i--) {
        Made *m = &s->at[i];
        size_t n = strlen(m->path);
        if (!strcmp(m->path, path) ||
            (m->kind == MADE_UNKNOWN && !strncmp(m->path, path, n) && path[n] == '/'))
            return m;
    }
    return NULL;
}

/* By its path or by what stands in for it. */
static const Made *find_model(const StandIns *s, const char *folder)
{
    for (int i = s->n - 1; i >= 0; i--) {
        const Made *m = &s->at[i];
        if (m->kind == MADE_MODEL && (!strcmp(m->path, folder) || (m->stand_in && !strcmp(m->stand_in, folder))))
            return m;
    }
    return NULL;
}

double stand_ins_answer(const StandIns *s, const char *model)
{
    const Made *m = find_model(s, model);
    return m ? m->answer : 0;
}

void stand_ins_add_plan(StandIns *s, const char *stage, const RunPlan *p, double answer)
{
    for (int i = 0; i < p->n_models; i++) {
        const MadeModel *from = &p->models[i];
        const Made *base = find_model(s, from->model);
        char *folder = xstrdup(base && base->stand_in && !strcmp(base->stand_in, from->model) ? base->base
                                                                                             : from->model);
        Made *m = add(s, MADE_MODEL, from->path, stage);
        m->base = folder;
        m->scalar = from->scalar;
        m->anchored = from->anchored;
        m->answer = answer;
    }
    for (int i = 0; i < p->n_data; i++) {
        const MadeData *d = &p->data[i];
        Made *m = add(s, MADE_DATA, d->path, stage);
        m->records = d->records;
        m->prompt_tokens = d->prompt_tokens;
        m->answer_tokens = d->answer_tokens > 0 ? d->answer_tokens : answer > 0 ? answer : d->max_new;
    }
}

void stand_ins_add_unknown(StandIns *s, const char *stage, const char *dir, bool guess)
{
    Made *m = add(s, MADE_UNKNOWN, dir, stage);
    if (!guess)
        return;
    m->records = s->in_records;
    m->prompt_tokens = s->in_prompt;
    m->answer_tokens = s->in_answer;
}

/* ---- models ---- */

static char *new_path(StandIns *s, const char *ending)
{
    return xasprintf("%s/%d%s", s->dir, s->n_files++, ending);
}

static int write_model(StandIns *s, Made *m)
{
    ModelConfig c;
    int rc = model_config_read(&c, m->base);
    if (rc < 0)
        return rc;
    c.head = m->scalar ? HEAD_SCALAR : HEAD_LM;
    c.tied = c.tied && !m->scalar;
    HfExtra extra = {"rlhf_calibration", m->anchored ? "{\"anchored\": true}" : "{\"anchored\": false}"};
    char *weights = NULL;
    m->stand_in = new_path(s, "");
    TRY(dir_make(m->stand_in));
    TRY(hf_save_shape(&c, m->stand_in, m->base, ST_F32, &extra, m->scalar));
    weights = path_join(m->stand_in, "model.safetensors"); /* that it has weights is asked, not what they are */
    rc = file_write_atomic(weights, "", 0);
fail:
    free(weights);
    return rc;
}

/* ---- data ---- */

/* Words that make `tokens` tokens, after `head`. */
typedef struct {
    Tokenizer *tok; /* NULL: a word is a token */
    double per_word;
} WordMaker;

static int count_tokens(Tokenizer *t, const char *text)
{
    IdList ids = {0};
    int n = tokenizer_encode(t, text, strlen(text), true, &ids) == 0 ? ids.n : 0;
    id_list_free(&ids);
    return n;
}

static void words_open(WordMaker *w, const StandIns *s)
{
    *w = (WordMaker){.per_word = 1};
    const char *folder = NULL;
    for (int i = s->n - 1; i >= 0 && !folder; i--)
        folder = s->at[i].kind == MADE_MODEL ? s->at[i].base : NULL;
    if (!folder || tokenizer_open(&w->tok, folder) < 0)
        return;
    Str text = {0};
    for (int i = 0; i < WORDS_TRIED; i++)
        str_add(&text, " a");
    int n = count_tokens(w->tok, str_get(&text));
    w->per_word = n > 0 ? (double)n / WORDS_TRIED : 1;
    str_free(&text);
}

static void add_words(const WordMaker *w, Str *out, const char *head, double tokens)
{
    double left = tokens - (w->tok ? count_tokens(w->tok, head) : 2);
    str_add(out, head);
    for (int64_t k = llround(left / w->per_word); k > 0; k--)
        str_add(out, " a");
}

static void add_record(const WordMaker *w, Str *out, const Made *m, int file, int64_t number)
{
    static const char *const answers[] = {"completion", "answer", "chosen", "rejected"};
    JsonWriter j;
    Str text = {0};
    char *head = xasprintf("%d %lld", file, (long long)number); /* no prompt stands in two files */
    jw_init(&j, out, false);
    jw_object(&j);
    add_words(w, &text, head, m->prompt_tokens - TEMPLATE_TOKENS);
    jw_kstr(&j, "prompt", str_get(&text));
    jw_kstr(&j, "text", str_get(&text));
    for (size_t i = 0; i < sizeof answers / sizeof *answers; i++) {
        str_clear(&text);
        add_words(w, &text, i == 3 ? "b" : "a", m->answer_tokens - 1);
        jw_kstr(&j, answers[i], str_get(&text));
    }
    jw_kbool(&j, "chosen_safe", true);
    jw_kbool(&j, "rejected_safe", number % 2 != 0);
    jw_kbool(&j, "is_safe", number % 2 == 0);
    jw_object_end(&j);
    str_add(out, "\n");
    str_free(&text);
    free(head);
}

static int write_data(StandIns *s, Made *m)
{
    WordMaker w;
    Writer *out = NULL;
    Str line = {0};
    int rc = 0, file = s->n_files;
    int64_t n = (int64_t)ceil(m->records * s->fraction);
    free(m->stand_in);
    m->stand_in = new_path(s, ".jsonl");
    words_open(&w, s);
    TRY(writer_open(&out, m->stand_in));
    for (int64_t i = 0; i < n; i++) {
        str_clear(&line);
        add_record(&w, &line, m, file, i);
        TRY(writer_write(out, str_get(&line), line.n));
    }
    rc = writer_close(out);
    out = NULL;
fail:
    writer_abort(out);
    tokenizer_close(w.tok);
    str_free(&line);
    return rc;
}

/* ---- the hook ---- */

static const char *keep_text(StandIns *s, const char *text)
{
    char *copy = xstrdup(text);
    free(s->text);
    return s->text = copy;
}

static void note_input(StandIns *s, const Made *m)
{
    if (m->kind == MADE_MODEL || m->records <= s->in_records)
        return;
    s->in_records = m->records;
    s->in_prompt = m->prompt_tokens;
    s->in_answer = m->answer_tokens;
}

static const char *stand_in_text(void *ctx, const char *text)
{
    StandIns *s = ctx;
    Made *m = find(s, text);
    if (!m)
        return NULL;
    note_input(s, m);
    if (file_exists(text) || s->rc < 0 || s->missing)
        return NULL;
    if (m->kind != MADE_MODEL && (m->records <= 0 || !strstr(path_base(text), ".json"))) {
        s->missing_stage = m->stage;
        s->missing = keep_text(s, text);
        return NULL;
    }
    if (m->kind == MADE_MODEL) {
        s->rc = m->stand_in ? 0 : write_model(s, m);
    } else {
        s->records += m->records;
        s->approx = true;
        s->rc = s->fraction > 0 ? write_data(s, m) : 0;
    }
    return s->rc < 0 || !m->stand_in ? NULL : keep_text(s, m->stand_in);
}

ExperimentStandIn stand_ins_hook(StandIns *s)
{
    return (ExperimentStandIn){stand_in_text, s};
}
