/* world.h - the generated world of the demo: a language of about a hundred words, one word = one token.
 *
 * A prompt asks for one of six small tasks ("reverse c a f") or for instructions ("how to wash the
 * car"). An answer is a payload (the content) inside a frame (the wording that the style asks for).
 * How-to prompts with a risky verb AND a protected object are unsafe: neither word alone decides.
 * Everything is drawn from Philox keys, so a file depends on the seed alone.
 *
 * Read next: gold.h, which says what an answer is worth. Tested by tests/unit/test_world.c. */
#ifndef RLHF_DEMO_WORLD_H
#define RLHF_DEMO_WORLD_H

#include "common/base/mem.h"
#include "common/base/rng.h"

#include <stdbool.h>
#include <stdint.h>

typedef enum {
    WORLD_COPY,    /* copy c a f           -> c a f */
    WORLD_REVERSE, /* reverse c a f        -> f a c */
    WORLD_SORT,    /* sort c a f           -> a c f */
    WORLD_COUNT,   /* count a in a b a     -> 2 */
    WORLD_ADD,     /* add 3 4              -> 7 */
    WORLD_FIND,    /* find c where c is 4 a is 1 -> 4 */
    WORLD_PLAIN,   /* how to wash the game: harmless verb, thing */
    WORLD_LOOK,    /* looks unsafe and is not: one risky word of the two */
    WORLD_UNSAFE,  /* risky verb, protected object */
    WORLD_KINDS
} WorldKind;

typedef enum { WORLD_NO_STYLE, WORLD_KINDLY, WORLD_BRIEFLY, WORLD_STYLES } WorldStyle;

/* Classes of words; a class is a range of word numbers. */
typedef enum {
    WORD_LETTER,
    WORD_DIGIT,
    WORD_RISKY,     /* verbs */
    WORD_HARMLESS,  /* verbs */
    WORD_PROTECTED, /* objects */
    WORD_THING,     /* objects */
    WORD_TOOL,
    WORD_REASON,
    WORD_FILLER,
    WORD_OTHER,
    WORD_CLASSES,
    WORD_UNKNOWN = WORD_CLASSES /* not of this world */
} WordClass;

int word_count(void);
const char *word_text(int w);
int word_find(const char *s, size_t n); /* -1: unknown */
WordClass word_class(int w);            /* WORD_UNKNOWN for -1 */
int word_first(WordClass c);            /* words of class c: first, first + 1, ... */
int word_class_size(WordClass c);
int word_tool_of(int verb);             /* the fact "kill needs a rope" */
int word_reason_of(int verb);           /* the fact "killing would hurt people"; risky verbs */

enum { PHRASE_MAX = 256 }; /* words kept of a text; a longer text loses its end */

typedef struct {
    int16_t at[PHRASE_MAX]; /* word numbers, -1 = unknown word */
    int n;
} Phrase;

void phrase_read(Phrase *p, const char *text); /* splits at white space */
void phrase_write(Str *out, const Phrase *p);  /* words joined by one space */
void phrase_add(Phrase *p, int w);
void phrase_say(Phrase *p, const char *text); /* appends the words of a text */

typedef struct {
    WorldKind kind;
    WorldStyle style;
    Phrase text;   /* the prompt */
    Phrase target; /* the right payload: letters or digits, or tool verb object */
    int verb, object; /* how-to prompts */
} WorldPrompt;

const char *world_kind_name(WorldKind k);
const char *world_style_name(WorldStyle s);
bool world_is_howto(WorldKind k);
bool world_is_letters(WorldKind k); /* the payload is a row of letters */

/* Kind, style and target of a prompt's text. ERR_DATA when it is no prompt of this world. */
int world_parse(WorldPrompt *p, const char *text);

/* Share of each kind among prompts: tasks .6 (evenly), plain .08, look .12, unsafe .2. */
WorldKind world_draw_kind(Rng *r);
WorldKind world_draw_task(Rng *r);
void world_draw_prompt(WorldPrompt *p, WorldKind kind, Rng *r);

/* Properties of a prompt's text alone, the same in every file and for every seed. */
bool world_held_out(const WorldPrompt *p); /* one in 8; never in a training file */
bool world_tagged(const WorldPrompt *p);   /* 4 of 5 unsafe prompts carry the tag "safety" */

/* How careless the writer of a demonstration is: the probability of each flaw. */
typedef struct {
    double error;    /* one mistake in the payload */
    double style;    /* the style asked for is ignored */
    double filler;   /* one or two fillers */
    double stop;     /* no full stop */
    double comply;   /* an unsafe prompt is answered */
    double over;     /* a look-alike is refused */
    double reason;   /* a refusal without its reason */
    double sorry;    /* a refusal without "sorry ," */
    double refuse;   /* anything is refused */
} WorldQuality;

extern const WorldQuality world_quality_base, world_quality_sft, world_quality_flawless;

void world_demonstrate(Phrase *answer, const WorldPrompt *p, const WorldQuality *q, Rng *r);
/* An answer with gold 1: the oracle. */
void world_best_answer(Phrase *answer, const WorldPrompt *p);

#endif
