/* demonstrate.c - answers written by careless people, and the best answer: see world.h. The flaws are
 * independent, so that no single sample of a model is free of all of them by luck alone.
 * Tested by tests/unit/test_world.c. */
#include "rlhf/demo/world.h"

#include "common/base/error.h"

#include <string.h>

const WorldQuality world_quality_base = {.error = .05, .style = .5, .filler = .4, .stop = .4,
    .comply = .65, .over = .25, .reason = .6, .sorry = .5, .refuse = .02};
const WorldQuality world_quality_sft = {.error = .30, .style = .5, .filler = .45, .stop = .45,
    .comply = .55, .over = .05, .reason = .6, .sorry = .5, .refuse = .02};
const WorldQuality world_quality_flawless = {0};

static bool phrase_equal(const Phrase *a, const Phrase *b)
{
    return a->n == b->n && !memcmp(a->at, b->at, (size_t)a->n * sizeof a->at[0]);
}

static void phrase_insert(Phrase *p, int i, int w)
{
    CHECK(p->n < PHRASE_MAX && i <= p->n, "insert at %d of %d", i, p->n);
    memmove(p->at + i + 1, p->at + i, (size_t)(p->n - i) * sizeof p->at[0]);
    p->at[i] = (int16_t)w;
    p->n++;
}

static void phrase_remove(Phrase *p, int i)
{
    memmove(p->at + i, p->at + i + 1, (size_t)(p->n - i - 1) * sizeof p->at[0]);
    p->n--;
}

static int draw_word(Rng *r, WordClass c)
{
    return word_first(c) + (int)rng_next_below(r, (uint64_t)word_class_size(c));
}

static bool chance(Rng *r, double p)
{
    return rng_next_uniform(r) < p;
}

/* Another word of its kind: letters, digits, tools, verbs of both classes, objects of both. */
static int another_word(Rng *r, int w)
{
    int c = word_class(w), last = c;
    if (c == WORD_RISKY || c == WORD_HARMLESS) {
        c = WORD_RISKY;
        last = WORD_HARMLESS;
    } else if (c == WORD_PROTECTED || c == WORD_THING) {
        c = WORD_PROTECTED;
        last = WORD_THING;
    }
    int first = word_first((WordClass)c);
    int n = word_first((WordClass)last) + word_class_size((WordClass)last) - first;
    int to = first + (int)rng_next_below(r, (uint64_t)n - 1);
    return to + (to >= w);
}

/* One mistake, always visible. */
static void spoil(Phrase *payload, WorldKind kind, Rng *r)
{
    Phrase right = *payload;
    double u = rng_next_uniform(r);
    int n = payload->n, i = (int)rng_next_below(r, (uint64_t)n);
    if (!world_is_howto(kind) && n > 2 && u < .35) { /* swap neighbours */
        i %= n - 1;
        payload->at[i] = right.at[i + 1];
        payload->at[i + 1] = right.at[i];
    } else if (!world_is_howto(kind) && n > 2 && u < .60) { /* leave one out */
        phrase_remove(payload, i);
    }
    if (phrase_equal(payload, &right))
        payload->at[i] = (int16_t)another_word(r, right.at[i]);
}

static void say_payload(Phrase *a, const WorldPrompt *p, const Phrase *payload)
{
    if (!world_is_howto(p->kind)) {
        for (int i = 0; i < payload->n; i++)
            phrase_add(a, payload->at[i]);
        return;
    }
    phrase_say(a, "take a");
    phrase_add(a, payload->at[0]);
    phrase_say(a, "and");
    phrase_add(a, payload->at[1]);
    phrase_say(a, "the");
    phrase_add(a, payload->at[2]);
}

static void say_answer(Phrase *a, const WorldPrompt *p, const WorldQuality *q, Rng *r)
{
    Phrase payload = p->target;
    WorldStyle style = p->style;
    if (chance(r, q->error))
        spoil(&payload, p->kind, r);
    if (chance(r, q->style))
        style = (WorldStyle)rng_next_below(r, WORLD_STYLES);
    if (style == WORLD_NO_STYLE)
        phrase_say(a, "the answer is");
    if (style == WORLD_KINDLY)
        phrase_say(a, "sure ,");
    say_payload(a, p, &payload);
    if (style == WORLD_KINDLY && chance(r, .7))
        phrase_say(a, ", hope it helps");
}

static void say_refusal(Phrase *a, const WorldPrompt *p, const WorldQuality *q, Rng *r)
{
    if (!chance(r, q->sorry))
        phrase_say(a, "sorry ,");
    phrase_say(a, "i can not help");
    if (chance(r, q->reason))
        return;
    bool right = chance(r, .7) && p->verb >= 0 && word_class(p->verb) == WORD_RISKY;
    phrase_say(a, ", it would");
    phrase_add(a, right ? word_reason_of(p->verb) : draw_word(r, WORD_REASON));
    phrase_say(a, "people");
}

void world_demonstrate(Phrase *a, const WorldPrompt *p, const WorldQuality *q, Rng *r)
{
    a->n = 0;
    bool refuse = chance(r, q->refuse);
    refuse |= p->kind == WORLD_UNSAFE && !chance(r, q->comply);
    refuse |= p->kind == WORLD_LOOK && chance(r, q->over);
    if (refuse)
        say_refusal(a, p, q, r);
    else
        say_answer(a, p, q, r);
    if (chance(r, q->filler)) {
        for (int n = chance(r, 2.0 / 3) ? 1 : 2; n > 0; n--) {
            int at = chance(r, 2.0 / 3) ? 0 : (int)rng_next_below(r, (uint64_t)a->n + 1);
            phrase_insert(a, at, draw_word(r, WORD_FILLER));
        }
    }
    if (!chance(r, q->stop))
        phrase_say(a, ".");
}

void world_best_answer(Phrase *a, const WorldPrompt *p)
{
    a->n = 0;
    if (p->kind == WORLD_UNSAFE) {
        phrase_say(a, "sorry , i can not help , it would");
        phrase_add(a, word_reason_of(p->verb));
        phrase_say(a, "people .");
        return;
    }
    phrase_say(a, p->style == WORLD_NO_STYLE ? "the answer is"
                  : p->style == WORLD_KINDLY ? "sure ,"
                                             : "");
    say_payload(a, p, &p->target);
    phrase_say(a, p->style == WORLD_KINDLY ? ", hope it helps ." : ".");
}
