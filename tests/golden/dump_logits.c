/* dump_logits.c - logits of a causal model's folder for sequences of ids, for check_smollm2.py to compare.
 *
 *     dump_logits FOLDER THREADS <ids >logits
 *
 * One sequence of ids, separated by blanks, a line; for each token V floats of f32, one sequence after another. Compiled
 * and linked with librlhf.a by that script; part of no test. */
#include "common/base/error.h"
#include "common/model/hf.h"
#include "common/model/llama.h"
#include "common/runtime/device.h"

#include <stdio.h>
#include <stdlib.h>

enum { MAX_TOKENS = 1024 };

typedef struct {
    Device *dev;
    ModelConfig config;
    Arena arena;
    Model model;
    ParamSet params;
    Acts *acts;
    Batch batch;
    Pack pack;
    Tensor logits; /* (MAX_TOKENS, V) */
} Dump;

static int open_model(Dump *d, const char *folder, int threads)
{
    int rc = 0;
    TRY(device_open(&d->dev, &(DeviceOptions){.name = "cpu", .threads = threads}));
    TRY(model_config_read(&d->config, folder));
    CHECK(d->config.head == HEAD_LM, "%s is no causal model", folder);
    pack_init(&d->pack, MAX_TOKENS, 1);
    arena_init(&d->arena, d->dev, ARENA_DEVICE, "model");
    for (int pass = 0; pass < 2; pass++) {
        TRY(model_init(&d->model, &d->config, DTYPE_F32, d->dev, &d->arena, MAX_TOKENS));
        params_alloc(&d->params, &d->model.table, &d->arena, "model", true);
        if (!d->acts)
            d->acts = acts_new(&d->model, MAX_TOKENS, false, RECOMPUTE_NONE);
        acts_alloc(d->acts, &d->arena);
        batch_alloc(&d->batch, &d->arena, d->dev, MAX_TOKENS, 1);
        d->logits = arena_rows2(&d->arena, DTYPE_F32, MAX_TOKENS, d->config.V);
        if (!pass)
            TRY(arena_commit(&d->arena));
    }
    TRY(hf_load_params(&d->params, folder, HEAD_AS_STORED, 0));
fail:
    return rc;
}

static void dump_sequence(Dump *d, const IdList *ids)
{
    size_t count = (size_t)(ids->n * d->config.V);
    pack_clear(&d->pack);
    pack_add(&d->pack, ids->at, NULL, ids->n, 0);
    batch_set(&d->batch, &d->pack);
    model_forward(&d->model, &d->params, NULL, &d->batch, d->acts);
    Tensor hidden = acts_hidden(d->acts, &d->batch), logits = tensor_slice(&d->logits, 0, ids->n);
    lm_head_logits(&logits, &hidden, &d->model, &d->params);
    CHECK(fwrite(logits.data, sizeof(float), count, stdout) == count, "standard output");
}

static void dump_close(Dump *d)
{
    acts_free(d->acts);
    pack_free(&d->pack);
    params_free(&d->params);
    model_free(&d->model);
    arena_free(&d->arena);
    device_close(d->dev);
}

int main(int argc, char **argv)
{
    Dump d = {0};
    IdList ids = {0};
    char *line = NULL;
    size_t room = 0;
    CHECK(argc == 3, "usage: dump_logits FOLDER THREADS <ids >logits");
    int rc = open_model(&d, argv[1], atoi(argv[2]));
    while (rc == 0 && getline(&line, &room, stdin) > 0) {
        char *at = line, *end;
        ids.n = 0;
        for (long id; id = strtol(at, &end, 10), end != at; at = end)
            id_list_add(&ids, (int32_t)id);
        CHECK(ids.n > 0 && ids.n <= MAX_TOKENS, "%d ids in a line, room for %d", ids.n, MAX_TOKENS);
        dump_sequence(&d, &ids);
    }
    if (rc < 0)
        fprintf(stderr, "dump_logits: %s\n", error_text());
    free(line);
    id_list_free(&ids);
    dump_close(&d);
    return rc < 0;
}
