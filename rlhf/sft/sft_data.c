/* sft_data.c - config table of rlhf-sft, and its records as sequences with a loss mask. Tested by
 * tests/e2e/test_sft.sh. */
#include "rlhf/sft/sft.h"

#include "common/base/error.h"
#include "common/base/hash.h"
#include "common/base/log.h"

#include <stdlib.h>
#include <string.h>

#define AT(m) offsetof(SftConfig, m)

const CfgField sft_fields[] = {
    RUN_FIELDS(SftConfig),
    BEST_FIELDS(SftConfig, "lowest eval_loss"),
    UNIT_FIELDS(SftConfig),
    {"model", CFG_STRING, AT(model), .flags = CFG_REQUIRED,
     .help = "Hugging Face folder to start from; with init: random, config.json and tokenizer are enough"},
    {"init", CFG_ENUM, AT(init), "checkpoint", .choices = "checkpoint|random",
     .help = "weights: the folder's, or drawn from seed"},
    {"pretrain", CFG_BOOL, AT(pretrain), "false",
     .help = "records are {text}: loss on every token (a base model)"},
    {"template", CFG_ENUM, AT(template_kind), "auto", .choices = TEMPLATE_CHOICES,
     .help = "chat template; auto = the model's own"},
    {"data.train", CFG_LIST, AT(train), .item_fields = data_source_fields, .item_bytes = sizeof(DataSource),
     .flags = CFG_REQUIRED, .help = "sources: {path, weight}; weights are shares of the mix"},
    {"data.eval", CFG_STRING, AT(eval_path), "", .help = "held-out records: eval_loss; empty = none"},
    {"data.on_bad_row", CFG_ENUM, AT(on_bad_row), "error", .choices = "error|skip",
     .help = "what a malformed record does"},
    {"data.on_long", CFG_ENUM, AT(on_long), "drop", .choices = "drop|truncate_left|error",
     .help = "sequences longer than max_length"},
    {"max_length", CFG_INT, AT(max_length), "4096", 2, 1e9, .help = "tokens of a whole conversation"},
    {"epochs", CFG_INT, AT(epochs), "2", 1, 1e6, .help = "passes over the data"},
    {"batch_size", CFG_INT, AT(batch_size), "64", 1, 1e7, .help = "sequences per optimizer step"},
    {"micro_batch_tokens", CFG_INT, AT(micro_batch_tokens), "4096", 2, 1e9, .flags = CFG_NO_RESULT,
     .help = "tokens per forward and backward; never changes a result"},
    RECOMPUTE_FIELD(SftConfig, recompute),
    OPTIM_FIELDS(SftConfig, optim, "optim", "2e-5", "cosine", "1e-5"),
    {0},
};

int sft_data_read(SftData *d, const DataSource *sources, int n_sources, const ChatTemplate *chat,
                  const SftConfig *c)
{
    int rc = 0;
    RecordKind kind = c->pretrain ? RECORD_TEXT : RECORD_SFT;
    int64_t *record_first = xcalloc((size_t)n_sources + 1, sizeof *record_first);
    d->source_first = xcalloc((size_t)n_sources + 1, sizeof *d->source_first);
    for (int i = 0; i < n_sources; i++) {
        TRY(record_set_read(&d->records, sources[i].path, kind, (BadRow)c->on_bad_row));
        record_first[i + 1] = d->records.n;
        if (record_first[i + 1] == record_first[i]) {
            rc = error_set(ERR_DATA, "%s: no records", sources[i].path);
            goto fail;
        }
    }
    TRY(example_set_make(&d->examples, &d->records, 0, chat, (int)c->max_length, (OnLong)c->on_long, (BadRow)c->on_bad_row));
    /* examples keep the order of the records */
    for (int i = 0, k = 0; i < n_sources; i++) {
        while (k < d->examples.n && d->examples.at[k].record < record_first[i + 1])
            k++;
        d->source_first[i + 1] = k;
    }
    log_info("%lld sequences, %lld tokens, %lld of them trained on", (long long)d->examples.n,
             (long long)d->examples.n_tokens, (long long)d->examples.n_targets);
    if (d->examples.n_long)
        log_warn("%lld sequences are longer than max_length %lld: %s", (long long)d->examples.n_long,
                 (long long)c->max_length, c->on_long == LONG_DROP ? "dropped" : "cut at the left");
    if (d->records.n_bad + d->examples.n_bad)
        log_warn("%lld malformed records were skipped", (long long)(d->records.n_bad + d->examples.n_bad));
fail:
    free(record_first);
    return rc;
}

uint64_t sft_data_hash(const SftData *d, uint64_t seed)
{
    for (int64_t i = 0; i < d->examples.n; i++) {
        const Example *e = &d->examples.at[i];
        const double weight = d->records.at[e->record].weight;
        seed = hash64(e->ids, (size_t)e->n * sizeof *e->ids, seed);
        seed = hash64(e->mask, (size_t)e->n * sizeof *e->mask, seed);
        seed = hash64(&weight, sizeof weight, seed);
    }
    return seed;
}

void sft_data_free(SftData *d)
{
    example_set_free(&d->examples);
    record_set_free(&d->records);
    free(d->source_first);
    memset(d, 0, sizeof *d);
}
