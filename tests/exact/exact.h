/* exact.h - random cases of the promise that a row's result depends on that row, the weights and the
 * build alone. A case draws a tiny model (grouped heads, odd widths, tied or not,
 * biases, norms of q and k, either head) and
 * documents from (seed, family, number); a family computes the same numbers in two ways and compares
 * them by memcmp. Cases are drawn and models opened in world.c, families.c and sampler.c say what is compared,
 * test_exact.c counts. */
#ifndef RLHF_TEST_EXACT_H
#define RLHF_TEST_EXACT_H

#include "common/generate/generate.h"
#include "common/train/optim.h"
#include "tests/unit/model_fixture.h"

enum { DOCS_MAX = 48, TOKENS_MAX = 4096, LONG_TOKENS = KV_CHUNK + 110, PROMPTS_MAX = 6, SAMPLES_MAX = 40 };

typedef struct {
    int n;
    int32_t starts[DOCS_MAX + 1], ids[TOKENS_MAX];
} Docs;

typedef struct Case {
    uint64_t seed;
    int family, number;
    DType dtype;  /* of products */
    bool planted; /* the second way gets a wrong weight: the family must notice */
    Rng rng;      /* all choices of the case */
    ModelConfig config;
    double spread; /* of the weights, in standard deviations of a usual initialization */
    bool policy;   /* PPO's surrogate and not cross-entropy */
    Recompute recompute; /* of backward of the nets opened next */
    Docs docs;
    /* outcome */
    uint64_t hash;               /* of what the first way gave */
    int64_t compared, n_sampled; /* bytes; tokens of the sampler */
    char *difference;            /* NULL: none */
} Case;

typedef struct {
    const char *name;
    void (*run)(Case *c);
    const char *claim;
} Family;
extern const Family families[];
extern const int n_families;
void sampler(Case *c); /* sampler.c */

/* ---- outcome ------------------------------------------------------------------------------------ */

void case_first(Case *c, const void *data, size_t bytes); /* of the first way: hashed, must be finite */
/* The second way against the first; what is first said of a case stays. */
void case_same(Case *c, const void *got, const void *want, size_t bytes, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));
void case_expect(Case *c, bool ok, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* ---- draws -------------------------------------------------------------------------------------- */

int64_t draw(Case *c, int64_t from, int64_t to); /* from..to, both included */
bool draw_one_in(Case *c, int n);
void draw_model(Case *c, bool either_head);
/* Up to most documents of up to `longest` tokens; now and then one that is longer than KV_CHUNK. */
void draw_docs(Case *c, Docs *d, int least, int most, int longest);

/* ---- a model on a device ------------------------------------------------------------------------ */

typedef struct {
    Fixture f;
    Arena cache, host, optim_arena;
    KvCache kv;
    ExtendWork *work;
    Generator *gen;
    Optim optim;
} Net;

/* The case's model with its weights; false: this CPU has no such bodies. */
bool net_open(Net *n, const Case *c, CpuIsa isa, int threads, int max_tokens);
void net_open_any(Net *n, Case *c, int max_tokens); /* the best bodies, on 1 to 3 threads */
void net_open_cache(Net *n, int slots, int length, int rows);
void net_open_generator(Net *n, int slots, int length, int rows);
void net_open_optim(Net *n);
void net_close(Net *n);
/* Where c->planted: one weight of the final norm is off by 2^-11 from here on. */
void net_plant(Net *n, const Case *c);

/* Values that heads make of a row: log-probability of the next token, log-sum-exp, entropy, hit; or the
 * score and zeros. */
typedef struct {
    float v[4];
} RowValues;

/* Results of a pass over documents, by row of the pack. */
typedef struct {
    int64_t T, C;
    float *hidden, *dx; /* (T, C); dx: gradient of the embedding's output, NULL without backward */
    RowValues *values;  /* (T) */
} Pass;

void pass_free(Pass *p);
/* Documents of d by a list of their numbers, as one pack: forward; with train, loss and backward too,
 * gradients adding up in n->f.g. A document's loss does not depend on the list. */
Pass net_pass(Net *n, const Case *c, const Docs *d, const int *list, int n_list, bool train);
/* Values of rows 0..R-1 of a hidden state; target: ids that follow. */
void net_values(Net *n, const Tensor *hidden, const int32_t *target, int64_t R, RowValues *out);
/* All gradients one after another, xmalloc'ed. */
size_t net_grads(const Net *n, char **out);
size_t net_weights(const Net *n, char **out);

#endif
