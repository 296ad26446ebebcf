/* tokenizer_config.c - what a model folder says beside tokenizer.json: BOS, EOS, chat template.
 *
 * chat_template.jinja wins over tokenizer_config.json, whose chat_template may be a text or a list
 * of named ones ("default" is taken). A token that is absent is looked up by its usual names; one
 * that is null is none. Tested by tests/unit/test_template.c. */
#include "common/base/error.h"
#include "common/base/file.h"
#include "common/text/tokenizer_read.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const usual_bos[] = {"<s>", "<|begin_of_text|>", "<bos>", NULL};
static const char *const usual_eos[] = {"</s>", "<|end_of_text|>", "<|endoftext|>", "<eos>", NULL};

static int read_token(const Tokenizer *t, int32_t *out, const Json *config, const char *key,
                      const char *const *usual, const char *path)
{
    const Json *j = json_get(config, key);
    const char *name = json_str(j) ? json_str(j) : json_str(json_get(j, "content"));
    *out = -1;
    if (json_kind(j) == JSON_NIL)
        return 0;
    if (!j) {
        for (; *usual && *out < 0; usual++)
            *out = tokenizer_id(t, *usual);
        return 0;
    }
    if (!name)
        return error_set(ERR_DATA,
                         "%s: %s is %s; expected a string, null or {\"content\": \"...\"}", path,
                         key, json_kind_name(json_kind(j)));
    *out = tokenizer_id(t, name);
    if (*out < 0)
        return error_set(ERR_DATA, "%s: %s \"%s\" is not a token of %s", path, key, name, t->path);
    return 0;
}

static void read_template(Tokenizer *t, const Json *config)
{
    const Json *j = json_get(config, "chat_template");
    const char *text = json_str(j);
    for (size_t i = 0; i < json_len(j) && json_kind(j) == JSON_ARR; i++) {
        const char *name = json_str(json_get(json_at(j, i), "name"));
        if (name && strcmp(name, "default") == 0)
            text = json_str(json_get(json_at(j, i), "template"));
    }
    if (text)
        t->chat_template = xstrdup(text);
}

/* What transformers keeps beside a tokenizer.model: tokens added to it, and whether a text behind an added
 * token gets a space in front (legacy, which is what an absent key means). */
static int read_spm_config(Tokenizer *t, const Json *config)
{
    const Json *added = json_get(config, "added_tokens_decoder");
    bool legacy;
    int rc = read_flag(t, &legacy, config, "tokenizer_config.json", "legacy", true);
    if (rc < 0)
        return rc;
    t->normalizer.at[0].prefix_at_start_only = !legacy;
    if (!read_absent(added) && json_kind(added) != JSON_OBJ)
        return read_fail(t, "tokenizer_config.json: added_tokens_decoder is %s; expected an object",
                         json_kind_name(json_kind(added)));
    for (void *it = added ? json_iter(added) : NULL; it; it = json_iter_next(added, it)) {
        const Json *j = json_iter_value(it);
        const char *content = json_str(json_get(j, "content"));
        char where[80], *end;
        long long id = strtoll(json_iter_key(it), &end, 10);
        snprintf(where, sizeof where, "tokenizer_config.json: added_tokens_decoder[\"%.20s\"]",
                 json_iter_key(it));
        if (*end || end == json_iter_key(it))
            return read_fail(t, "%s: the key is not an id", where);
        if (content && tokenizer_id(t, content) == id)
            continue; /* the model has it itself */
        if ((rc = read_added_token(t, j, id, where)) < 0)
            return rc;
    }
    read_pieces_end(t);
    read_added_end(t);
    return 0;
}

/* encode_special's BOS and EOS: a tokenizer.model has no post-processor. */
static int read_spm_around(Tokenizer *t, const Json *config)
{
    bool bos, eos;
    int rc;
    if ((rc = read_flag(t, &bos, config, "tokenizer_config.json", "add_bos_token", true)) < 0 ||
        (rc = read_flag(t, &eos, config, "tokenizer_config.json", "add_eos_token", false)) < 0)
        return rc;
    if (bos && t->bos >= 0)
        id_list_add(&t->before, t->bos);
    if (eos && t->eos >= 0)
        id_list_add(&t->after, t->eos);
    return 0;
}

int tokenizer_read_config(Tokenizer *t, const char *folder)
{
    char *path = path_join(folder, "tokenizer_config.json");
    char *jinja = path_join(folder, "chat_template.jinja");
    Json *config = NULL;
    size_t n;
    int rc = 0;
    if (file_is_there(path))
        TRY(json_read_file(&config, path));
    if (t->bpe.spm)
        TRY(read_spm_config(t, config));
    TRY(read_token(t, &t->bos, config, "bos_token", usual_bos, path));
    TRY(read_token(t, &t->eos, config, "eos_token", usual_eos, path));
    if (t->bpe.spm)
        TRY(read_spm_around(t, config));
    if (file_is_there(jinja))
        TRY(file_read_stored(jinja, &t->chat_template, &n));
    else
        read_template(t, config);
fail:
    json_free(config);
    free(path);
    free(jinja);
    return rc;
}
