/* reward_judge.h - a generative model as the judge of pairs: "which answer is better, A or B?" (Llama 2, table 7,
 * GPT-4's row), asked without sampling. Read are the log-probabilities of the two letters where the model's answer
 * begins, with the chosen answer shown as A and, in a second question, as B.
 *
 * In the order k (0: the chosen answer is A) let x_k = log p(letter of chosen) - log p(letter of rejected). A judge
 * who likes the first place gains it in x_0 and loses it in x_1, so the verdict is the sign of (x_0 + x_1) / 2 and
 * the liking is (x_0 - x_1) / 2. Tested by tests/unit/test_reward_judge.c and tests/e2e/test_reward_eval.sh. */
#ifndef RLHF_REWARD_JUDGE_H
#define RLHF_REWARD_JUDGE_H

#include "common/runtime/device.h"
#include "common/train/run_plan.h"
#include "reward/reward_eval.h"

typedef struct {
    const char *model, *prompt;
    int template_kind;
    ConfigStrings letters;
    int64_t max_pairs, max_length;
} JudgeConfig;

#define JUDGE_PROMPT                                                                                 \
    "Below are a conversation and two answers to it.\\n\\n[Conversation]\\n{prompt}\\n\\n[Answer A]\\n{a}\\n\\n"  \
    "[Answer B]\\n{b}\\n\\nChoose the best answer between A and B. Reply with one letter, A or B."

#define JUDGE_FIELDS(S, M)                                                                           \
    {"judge.model", CFG_STRING, offsetof(S, M.model), "", .help = "a chat model that is asked which answer is better; empty = none"}, \
    {"judge.template", CFG_ENUM, offsetof(S, M.template_kind), "auto", .choices = TEMPLATE_CHOICES, .help = "its chat template"}, \
    {"judge.prompt", CFG_STRING, offsetof(S, M.prompt), "\"" JUDGE_PROMPT "\"", .help = "what it is asked, with {prompt}, {a} and {b}"}, \
    {"judge.letters", CFG_STRINGS, offsetof(S, M.letters), "[A, B]", .help = "its two possible answers; the first token of each is looked at"}, \
    {"judge.max_pairs", CFG_INT, offsetof(S, M.max_pairs), "1000", 0, 1e12, .help = "pairs of each test set that are asked about, twice, drawn at random; 0 = all"}, \
    {"judge.max_length", CFG_INT, offsetof(S, M.max_length), "0", 0, 1e9, .help = "tokens of a question; longer ones are left out and counted; 0 = what the model takes, at most 4096"}

typedef struct {
    float logp[2][2]; /* of order k: [k][0] log p(A), [k][1] log p(B); NaN: not asked */
} JudgeAnswer;

typedef struct {
    Accuracy both, order[2]; /* of the verdict; of each order by itself. A tie is half */
    int64_t n_long;          /* pairs left out as too long */
    Interval agreement;      /* share of pairs in which both orders prefer the same answer */
    Interval says_first;     /* share of the 2 n answers that are A; 0.5 without a liking for a place */
    Interval liking;         /* mean of (x_0 - x_1) / 2: log odds of A over B beyond what the answers deserve */
    Interval mass;           /* mean of p(A) + p(B): far below 1, the judge wants to say something else */
} JudgeStats; /* the intervals over prompts */

/* Opens the model, asks about at most max_pairs pairs of each of the sets, which lie one after another in `all`:
 * set k is items [first[k], first[k + 1]). answer: one per item of `all`; n_long: one per set. micro_batch_tokens
 * never changes an answer. dry_run: prints the memory plan and asks nothing. plan (NULL: none) gets the work. */
typedef struct {
    const RecordSet *records;
    const PairSet *all;
    const int64_t *first;
    int n_sets;
    BadRow on_bad_row; /* of a text that the judge's template refuses */
    int64_t micro_batch_tokens;
    DType dtype;
    bool dry_run;
    RunPlan *plan;
} JudgeTask;
int judge_run(const JudgeConfig *c, const JudgeTask *task, Device *dev, JudgeAnswer *answer, int64_t *n_long);

/* The verdicts as scores of a table, EVAL_JUDGE: the mean of x_0 and x_1, and 0. */
void judge_scores(const JudgeAnswer *answer, int64_t n, float (*score)[2]);
/* Of one set; s->n_long is left alone. */
void judge_stats(JudgeStats *s, const PairSet *set, const JudgeAnswer *answer);
void judge_json(const JudgeStats *s, const char *set, JsonWriter *w);

/* Appends the question of one pair; swapped: the rejected answer is A. */
void judge_question(Str *out, const char *prompt, const Record *r, bool swapped);

#endif
