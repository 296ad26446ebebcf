/* tokenizer_impl.h - what the files of this folder share; nobody else includes it.
 *
 * The way of a text: added tokens that are not normalized are cut out of the raw text; each piece
 * between them is normalized (normalize.c); added tokens that are normalized are cut out of that;
 * what is left is split into words (pretokenize.c); a word becomes ids (bpe.c). */
#ifndef RLHF_TEXT_TOKENIZER_IMPL_H
#define RLHF_TEXT_TOKENIZER_IMPL_H

#define PCRE2_CODE_UNIT_WIDTH 8

#include "common/text/tokenizer.h"

#include <pcre2.h>

/* ---- UTF-8 (utf8.c). The texts are valid: tokenizer_encode checks that once. */

/* Length of the valid sequence at s (1..4), or 0 with *bad set to the number of bytes that one
 * U+FFFD stands for (the maximal subpart rule, as Rust's from_utf8_lossy). */
int utf8_check(const char *s, size_t n, int *bad);
/* Position of the first invalid byte; n when all is valid. */
size_t utf8_find_invalid(const char *s, size_t n);
/* Code point of a valid sequence; *len gets its bytes. */
uint32_t utf8_get(const char *s, int *len);
int utf8_put(char out[4], uint32_t c); /* bytes written */
void utf8_add_lossy(Str *dst, const char *s, size_t n);
bool utf8_is_space(uint32_t c);   /* White_Space, what \s means to Hugging Face's regex engines */
bool utf8_is_word(uint32_t c);    /* \w */
bool utf8_is_numeric(uint32_t c); /* general category N* */

/* ---- strings to ids, pairs to merges (bpe.c) */

typedef struct {
    char *s;
    uint32_t n;
    int32_t id; /* -1: free slot */
    bool hidden;
} VocabSlot;

typedef struct {
    VocabSlot *at; /* open addressing; size is a power of two; the strings are owned */
    uint32_t size, n;
} Vocab;

int32_t vocab_get(const Vocab *v, const char *s, size_t n); /* -1 */
/* Takes a copy. Returns the id that stands there already, or -1 when (s, id) was added. */
int32_t vocab_add(Vocab *v, const char *s, size_t n, int32_t id);
/* From now on vocab_get does not find the string. */
void vocab_hide(Vocab *v, const char *s, size_t n);
void vocab_free(Vocab *v);

typedef struct {
    uint64_t pair; /* left << 32 | right */
    int32_t rank, id; /* id -1: free slot; rank -1: never made */
} Merge;

typedef struct {
    Merge *at;
    uint32_t size, n;
} MergeTable;

void merges_put(MergeTable *m, int32_t left, int32_t right, int32_t rank, int32_t id);
const Merge *merges_get(const MergeTable *m, int32_t left, int32_t right);

enum { CACHE_WORD_BYTES = 22, CACHE_IDS = 8 };

typedef struct { /* one line of the CPU's cache */
    uint64_t hash;
    uint8_t n, n_ids; /* n 0: free */
    char s[CACHE_WORD_BYTES];
    int32_t ids[CACHE_IDS];
} CacheSlot;

typedef struct {
    int32_t id, prev, next; /* next -1: the last; id -1: merged into its left neighbour */
} BpeSymbol;

typedef struct {
    uint64_t key; /* rank << 32 | position: the order of merging */
    int32_t id;   /* what the pair becomes */
} BpeQueued;

typedef struct {
    bool is;
    int32_t left, right; /* what it was last made of; -1: one character, which stays */
} BpeUnused;

typedef struct {
    Vocab vocab;
    MergeTable merges;
    bool byte_fallback, fuse_unk, ignore_merges;
    bool bytes; /* words are bytes, which the vocabulary has as GPT-2's characters */
    bool spm;   /* SentencePiece's rules */
    bool cuts_at_spaces;     /* no merge reaches over the start of a run of U+2581 */
    int32_t unk;             /* -1: none */
    int32_t byte_ids[256];   /* "<0xXX>" or -1 */
    /* SentencePiece alone */
    int32_t n_ids;           /* ids from here on are the loose characters */
    Vocab user_defined;      /* matched before all else */
    size_t user_defined_bytes; /* of the longest */
    bool user_starts[256];   /* bytes that one of them begins with */
    Vocab loose;             /* characters of pieces that are no piece: n_ids, n_ids + 1, ... */
    char (*loose_text)[8];   /* by id - n_ids */
    BpeUnused *unused;       /* by id; NULL: the model has no UNUSED pieces */
    /* scratch */
    CacheSlot *cache;
    BpeSymbol *symbols;
    int n_symbols, cap_symbols;
    BpeQueued *queue;
    int n_queue, cap_queue;
    Str mapped;
} Bpe;

void bpe_encode_word(Bpe *b, const char *s, size_t n, IdList *out);
/* Bytes of the longest user-defined symbol at s (n > 0), 0 without one. */
size_t spm_match(const Bpe *b, const char *s, size_t n, int32_t *id);
void bpe_free(Bpe *b);

/* ---- normalizers (normalize.c) */

/* Where a piece stands: at offset 0 of everything, after an added token, or as the continuation of
 * text that was encoded before (then nothing is ever put in front of it). */
typedef enum { PIECE_START, PIECE_AFTER_TOKEN, PIECE_CONTINUES } PiecePlace;

typedef enum { NORM_PREPEND, NORM_REPLACE, NORM_NFC, NORM_SPM } NormKind;

typedef struct {
    NormKind kind;
    Str pattern, content;
    /* NORM_SPM */
    const Bpe *bpe; /* its user-defined symbols stay whole */
    bool prefix;    /* add_dummy_prefix */
    bool trim;      /* remove_extra_whitespaces */
    bool prefix_at_start_only; /* transformers' legacy: false; else after an added token too */
} NormStep;

typedef struct {
    NormStep *at;
    int n, cap;
} Normalizer;

void text_replace(Str *dst, const char *s, size_t n, const Str *pattern, const Str *content);
/* Appends the normalized text to dst. */
void normalizer_run(const Normalizer *m, const char *s, size_t n, PiecePlace place, Str *dst);
void normalizer_free(Normalizer *m);

/* ---- pre-tokenizers (pretokenize.c) */

typedef enum { PRE_SPLIT, PRE_DIGITS, PRE_BYTE_LEVEL, PRE_METASPACE } PreKind;
typedef enum { /* Hugging Face's names, in the order of split_behavior_names */
    SPLIT_ISOLATED, SPLIT_REMOVED, SPLIT_MERGED_WITH_PREVIOUS, SPLIT_MERGED_WITH_NEXT,
    SPLIT_CONTIGUOUS, SPLIT_COUNT
} SplitBehavior;
typedef enum { SCHEME_ALWAYS, SCHEME_FIRST, SCHEME_NEVER } PrependScheme;

extern const char *const split_behavior_names[SPLIT_COUNT];

typedef struct {
    PreKind kind;
    pcre2_code *re; /* PRE_SPLIT, and PRE_BYTE_LEVEL with use_regex */
    SplitBehavior behavior;
    bool invert;
    bool individual;    /* PRE_DIGITS */
    bool prefix_space;  /* PRE_BYTE_LEVEL */
    PrependScheme scheme; /* PRE_METASPACE */
    bool split;
    Str replacement;
} PreStep;

typedef struct {
    size_t from, to;
    bool first; /* starts where its piece starts */
} Word;

typedef struct {
    PreStep *at;
    int n, cap;
    pcre2_match_data *match;
    pcre2_match_context *context;
    pcre2_jit_stack *stack;
    bool no_jit;
    /* the words of the piece at hand, in text; the other pair is what the next step writes */
    Str text, next_text;
    Word *words, *next_words;
    int n_words, cap_words, n_next, cap_next;
    Word *cuts; /* of one word: matches and the text between them; .first says "match" */
    int n_cuts, cap_cuts;
} PreTokenizer;

extern const char gpt2_pattern[];

/* Compiles a pattern written for Oniguruma, where \s lacks U+180E. `what` names it in the error. */
int regex_compile(pcre2_code **out, const char *pattern, size_t n, bool literal, const char *what);
/* Splits a normalized piece into p->words (of p->text). A ByteLevel step that is the last one leaves the
 * bytes as they are. ERR_DATA when a match limit is hit. */
int pretokenizer_run(PreTokenizer *p, const char *s, size_t n, PiecePlace place);
void pretokenizer_free(PreTokenizer *p);
/* GPT-2's mapping of bytes to printable code points and back (-1: not one of them). */
uint32_t byte_level_char(unsigned char b);
int byte_level_byte(uint32_t c);

/* ---- decoders (decode.c) */

typedef enum { /* in the order of the names in tokenizer_steps.c */
    DEC_BYTE_LEVEL, DEC_METASPACE, DEC_REPLACE, DEC_BYTE_FALLBACK, DEC_FUSE, DEC_STRIP,
    DEC_SPM /* SentencePiece's own */
} DecKind;

typedef struct {
    DecKind kind;
    Str pattern, content; /* REPLACE; METASPACE and STRIP: the character in pattern */
    PrependScheme scheme;
    int start, stop; /* STRIP */
    bool prefix, trim; /* SPM */
} DecStep;

typedef struct {
    DecStep *at;
    int n, cap;
    bool none; /* no decoder: tokens joined by spaces */
} Decoder;

/* Joins the decoded tokens into dst. `tokens` is changed. */
void decoder_run(const Decoder *d, Str *tokens, int n, Str *dst);
void decoder_free(Decoder *d);

/* ---- the whole */

typedef struct {
    Str content;
    Str pattern; /* what is looked for: content, normalized where the token asks for it */
    int32_t id;
    bool special, normalized, lstrip, rstrip, single_word;
} AddedToken;

typedef struct {
    int *at; /* indices into Tokenizer.added; by first byte, the longest pattern first */
    int n;
    int from[257]; /* tokens starting with byte b: at[from[b] .. from[b + 1]) */
} AddedIndex;

typedef struct {
    char *s;
    uint32_t n;
    bool special;
} Piece;

struct Tokenizer {
    char *path; /* of tokenizer.json or tokenizer.model, for messages */
    Bpe bpe;
    Normalizer normalizer;
    PreTokenizer pre;
    Decoder decoder;
    AddedToken *added;
    int n_added, cap_added;
    AddedIndex raw, normalized;
    Vocab added_ids; /* content -> id */
    Piece *pieces;   /* by id; s NULL where ids have gaps */
    int n_pieces;
    IdList before, after; /* the post-processor's ids around a text */
    int32_t bos, eos;
    Str unk_surface; /* SentencePiece: what unk is decoded to */
    char *chat_template;
    char hash[33];
    Str scratch; /* the normalized piece */
};

#define SPM_SPACE "\xE2\x96\x81" /* U+2581 */
/* Whether a run of U+2581 begins behind another character of s. */
bool space_inside(const char *s, size_t n);
/* Reads tokenizer.json into a zeroed Tokenizer whose path is set (tokenizer_read.c). */
int tokenizer_read(Tokenizer *t);
/* The same for a tokenizer.model (spm_read.c). */
int tokenizer_read_spm(Tokenizer *t);
/* bos, eos and chat_template of the folder, of a tokenizer.model also legacy and added_tokens_decoder
 * (tokenizer_config.c). */
int tokenizer_read_config(Tokenizer *t, const char *folder);
/* tokenizer_encode for a text standing at `place`. */
int tokenizer_encode_at(Tokenizer *t, const char *text, size_t n, PiecePlace place, IdList *out);

#endif
