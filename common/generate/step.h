/* step.h - the device's part of a step of decoding: rows through the model, and a token for each row that
 * wants one. generate.c plans the rows; nobody else includes this.
 *
 * Everything a step tells the device goes there in one block, and what it drew comes back in one. Where
 * the device records graphs, a step of few rows is one: it is launched at once instead of op by op. A
 * graph is for a number of rows, of wanted rows and of pages; a step takes the next larger one and
 * fills up with rows that are none (op_kv_write, op_attention_paged), so no bit changes. */
#ifndef RLHF_GENERATE_STEP_H
#define RLHF_GENERATE_STEP_H

#include "common/model/llama.h"
#include "common/runtime/device.h"

enum {
    STEP_GRAPHS = 32,       /* graphs there are at a time; the one that was not used for longest goes */
    STEP_GRAPH_ROWS = 256,  /* steps of more rows are bound by what they compute */
};

typedef struct {
    int64_t rows, wanted, pages; /* pages: columns of the page table that are looked at */
} StepSize;

typedef struct {
    StepSize size; /* rows = 0: unused */
    Graph graph;   /* none yet after the first step of this size */
    int64_t last;  /* step of its last use */
} StepGraph;

typedef struct {
    const Model *m;
    int64_t n_slots, max_rows;
    KvCache kv;
    ExtendWork *work;

    /* The caller's, before step_run: rows (max_rows), and wanted ones (n_slots) by index into them, with
     * what is drawn with; inv_temp as in op_sample. */
    int32_t *id, *slot, *pos, *wanted;
    RngKey *key;
    real_t *inv_temp;
    int64_t n_rows, n_wanted;
    /* After it: of the wanted rows. */
    const int32_t *drawn;
    const real_t *logp;

    /* Its own */
    int32_t *block_host;   /* all of the above, packed */
    Tensor block;          /* i32: the same on the device */
    Tensor result;         /* i32: drawn, logp */
    int32_t *result_host;
    Tensor hidden, logits; /* lm_head_chunk rows */
    StepGraph graph[STEP_GRAPHS];
    bool graphs;           /* whether they are used */
    uint64_t weights;      /* where those are that graphs were recorded with */
    int64_t n_steps, n_launched;
} Step;

void step_init(Step *s, const Model *m, int64_t n_slots, int64_t max_rows);
void step_alloc(Step *s, int64_t max_length, Arena *device, Arena *host);
void step_free(Step *s);
/* Before the first step with p: graphs that were recorded with weights in other places are thrown away. */
void step_weights(Step *s, const ParamSet *p);
void step_run(Step *s, const ParamSet *p);

#endif
