/* tokenizer_read.h - shared by the files that read a tokenizer: messages that begin with the file and
 * name the place in it ("model.merges[3]"). */
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
/* The text of id `id`; `where` names it in the message when the id is out of range or taken. */
int read_piece(Tokenizer *t, int64_t id, const char *s, size_t n, bool special, const char *where);
void read_pieces_end(Tokenizer *t); /* when all are there */
/* An object with content and flags; then, when all are there, read_added_end. */
int read_added_token(Tokenizer *t, const Json *j, int64_t id, const char *where);
void read_added_end(Tokenizer *t);
/* normalizer, pre_tokenizer, decoder, post_processor. */
int read_steps(Tokenizer *t, const Json *root);

#endif
