/* tokenizer_read.h - shared by tokenizer_read.c and tokenizer_steps.c alone: reading with messages
 * that begin with the file and name the place in it ("model.merges[3]"). */
#ifndef RLHF_TEXT_TOKENIZER_READ_H
#define RLHF_TEXT_TOKENIZER_READ_H

#include "common/base/json.h"
#include "common/text/tokenizer_impl.h"

/* ERR_DATA with "PATH: text". */
int read_fail(const Tokenizer *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* A member that must be there and be of that kind. */
int read_member(const Tokenizer *t, Json **out, const Json *obj, const char *where, const char *key,
                JsonKind kind);
int read_flag(const Tokenizer *t, bool *out, const Json *obj, const char *where, const char *key,
              bool otherwise);
bool read_absent(const Json *j); /* missing or null */
void read_str(Str *dst, const Json *j);
/* normalizer, pre_tokenizer, decoder, post_processor. */
int read_steps(Tokenizer *t, const Json *root);

#endif
