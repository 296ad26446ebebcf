/* tokenizer.h - tokenizer.json (BPE of both kinds) and SentencePiece's tokenizer.model (BPE), ids exactly as
 * Hugging Face `tokenizers` and `sentencepiece` give.
 *
 * Kinds of tokenizer.json: byte-level (GPT-2, Llama 3, Qwen, SmolLM: Split/Digits/ByteLevel
 * pre-tokenizers) and byte fallback with U+2581 (Llama 2: Prepend/Replace normalizers, or Metaspace).
 * Anything else in a file is refused by name. User text never yields special tokens: encode() matches
 * only added tokens that are not special. Texts must be UTF-8 (ERR_DATA, naming the first bad byte). A
 * Tokenizer serves one thread at a time: it holds a cache and scratch memory. */
#ifndef RLHF_TEXT_TOKENIZER_H
#define RLHF_TEXT_TOKENIZER_H

#include "common/base/mem.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct {
    int32_t *at;
    int n, cap;
} IdList;

void id_list_add(IdList *l, int32_t id);
void id_list_add_all(IdList *l, const int32_t *ids, int n);
void id_list_free(IdList *l);

typedef struct Tokenizer Tokenizer;

/* Reads tokenizer.json of a model folder, tokenizer.model where there is none, and tokenizer_config.json
 * where present.
 * 0, ERR_NOINPUT, ERR_DATA (naming the part that is not supported). */
int tokenizer_open(Tokenizer **t, const char *folder);
void tokenizer_close(Tokenizer *t); /* NULL is fine */

int tokenizer_vocab_size(const Tokenizer *t); /* largest id + 1, added tokens included */
/* ERR_DATA when it has ids that a model of `vocab_size` rows (config.json) lacks. */
int tokenizer_check_vocab(const Tokenizer *t, const char *folder, int64_t vocab_size);
/* Id of a token by its literal content ("</s>", "<|im_end|>"), special or not; -1 if there is none. */
int32_t tokenizer_id(const Tokenizer *t, const char *content);
int32_t tokenizer_bos(const Tokenizer *t); /* of tokenizer_config.json, else by usual names; -1 */
int32_t tokenizer_eos(const Tokenizer *t);
bool tokenizer_is_special(const Tokenizer *t, int32_t id);
/* The chat_template text of the model (tokenizer_config.json, chat_template.jinja); NULL if none. */
const char *tokenizer_chat_template(const Tokenizer *t);
/* 128-bit hash of the file that was read, hex: to see that two folders use the same tokenizer. */
const char *tokenizer_hash(const Tokenizer *t);

/* Appends the ids of `text`. No post-processor, so no BOS. `first`: the text starts a sequence
 * (Prepend / Metaspace prepend_scheme "first" apply); otherwise it continues after other ids. */
int tokenizer_encode(Tokenizer *t, const char *text, size_t n, bool first, IdList *out);
/* The same with special tokens recognised in the text and the post-processor applied when
 * add_special: Hugging Face's encode(text, add_special_tokens=...). For tests and `rlhf inspect`. */
int tokenizer_encode_special(Tokenizer *t, const char *text, size_t n, bool add_special, IdList *out);
/* Text of ids, invalid UTF-8 replaced by U+FFFD. skip_special leaves special tokens out, unk among them. */
int tokenizer_decode(const Tokenizer *t, const int32_t *ids, int n, bool skip_special, Str *out);
/* One token as it stands in the vocabulary ("▁the"); "<invalid>" outside. */
const char *tokenizer_piece(const Tokenizer *t, int32_t id);

#endif
