/* import_rated.c - row functions of the sets that say how much better an answer is.
 *
 * Each gives import_add_pair a rating in the set's own unit; the levels of the table (or of the
 * config) turn it into Llama 2's four. A rating of 0 is a tie, except where the row chooses all the
 * same. Tested by tests/unit/test_import_sets.c. */
#include "common/data/import_impl.h"

#include "common/base/error.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* answer[0] is better when `lead` is above 0, answer[1] when it is below. */
static int add_two(Import *im, const Json *j, const Talk *prompt, const char *prompt_name,
                   const char *first, const char *second, double lead, const char *source)
{
    int rc = 0;
    Talk answer[2] = {{0}, {0}};
    TRY(import_talk(im, j, first, ROLE_ASSISTANT, &answer[0]));
    TRY(import_talk(im, j, second, ROLE_ASSISTANT, &answer[1]));
    if (lead == 0)
        import_drop(im, DROP_TIE);
    else
        TRY(import_add_pair(im, &(ImportPair){.prompt = prompt,
                                              .answer = {&answer[0], &answer[1]},
                                              .prompt_name = prompt_name,
                                              .name = {first, second},
                                              .better = lead < 0,
                                              .rating = fabs(lead),
                                              .source = source}));
fail:
    talk_free(&answer[0]);
    talk_free(&answer[1]);
    return rc;
}

static int add_prompt_and_two(Import *im, const Json *j, const char *prompt_name, const char *first,
                              const char *second, double lead, const char *source)
{
    int rc = 0;
    Talk prompt = {0};
    TRY(import_talk(im, j, prompt_name, ROLE_USER, &prompt));
    TRY(add_two(im, j, &prompt, prompt_name, first, second, lead, source));
fail:
    talk_free(&prompt);
    return rc;
}

/* strength -2..2, above 0: a. Its two steps, "better" and "slightly better", are the levels from 2
 * and from 1. */
int import_row_tulu(Import *im, const Json *j)
{
    int strength;
    const int rc = import_int(im, j, "strength", -2, 2, &strength);
    return rc < 0 ? rc
                  : add_prompt_and_two(im, j, "prompt", "completion_a", "completion_b", strength,
                                       NULL);
}

/* ---- HelpSteer */

/* Further turns stand in the prompt, behind NeMo's "<extra_id_1>Assistant\n" and "...User\n". */
static int helpsteer_prompt(Import *im, const Json *j, Talk *t)
{
    static const char mark[] = "<extra_id_1>";
    const char *text, *next;
    const int rc = import_str(im, j, "prompt", &text);
    if (rc < 0)
        return rc;
    if (strlen(text) != json_str_len(import_get(j, "prompt")) || !strstr(text, mark))
        return import_talk(im, j, "prompt", ROLE_USER, t);
    for (Role role = ROLE_USER; text; text = next) {
        next = strstr(text, mark);
        size_t n = next ? (size_t)(next - text) : strlen(text);
        if (t->n || n) { /* nothing stands before a mark at the start */
            text_strip(&text, &n);
            talk_add(t, role, text, n);
        }
        if (!next)
            break;
        next += strlen(mark);
        role = !strncmp(next, "Assistant\n", 10) ? ROLE_ASSISTANT : ROLE_USER;
        if (role == ROLE_USER && strncmp(next, "User\n", 5))
            return row_error(&im->place, FAULT_OTHER, "prompt",
                             "%s is followed by neither 'User' nor 'Assistant' and a newline",
                             mark);
        next = strchr(next, '\n') + 1;
    }
    return 0;
}

/* preference_strength -3..3, above 0: response_2. */
int import_row_helpsteer2(Import *im, const Json *j)
{
    int rc = 0, strength;
    Talk prompt = {0};
    TRY(helpsteer_prompt(im, j, &prompt));
    TRY(import_int(im, j, "preference_strength", -3, 3, &strength));
    TRY(add_two(im, j, &prompt, "prompt", "response_2", "response_1", strength, NULL));
fail:
    talk_free(&prompt);
    return rc;
}

/* overall_preference -3..3, above 0: response2. */
int import_row_helpsteer3(Import *im, const Json *j)
{
    int strength;
    const int rc = import_int(im, j, "overall_preference", -3, 3, &strength);
    return rc < 0 ? rc
                  : add_prompt_and_two(im, j, "context", "response2", "response1", strength,
                                       json_str(import_get(j, "domain")));
}

static Talk *group_add(ImportGroup *g, double score)
{
    const int cap = g->cap, i = VEC_GROW(g->answer, g->n, g->cap);
    if (g->cap != cap)
        g->score = xrealloc(g->score, (size_t)g->cap * sizeof *g->score);
    g->score[i] = score;
    memset(&g->answer[i], 0, sizeof g->answer[i]);
    return &g->answer[i];
}

static void group_start_take(Import *im, Talk *prompt, const char *prompt_name,
                             const char *answer_name)
{
    im->group.prompt = *prompt;
    im->group.prompt_name = prompt_name;
    im->group.answer_name = answer_name;
    im->group.from = *im->place.from;
    memset(prompt, 0, sizeof *prompt);
}

/* A row is one answer with ratings 0..4; those of one prompt follow one another. */
int import_row_helpsteer(Import *im, const Json *j)
{
    int rc = 0;
    double score;
    Talk prompt = {0}, answer = {0};
    ImportGroup *g = &im->group;
    TRY(helpsteer_prompt(im, j, &prompt));
    TRY(import_talk(im, j, "response", ROLE_ASSISTANT, &answer));
    TRY(import_num(im, j, "helpfulness", 0, 4, &score));
    if (g->n && (prompt.n != g->prompt.n || talk_common(&prompt, &g->prompt) != prompt.n))
        TRY(import_add_group(im));
    if (g->n == 0) {
        group_start_take(im, &prompt, "prompt", "response");
        g->from.text = NULL; /* gone with the next row */
    }
    Talk *to = group_add(g, score);
    *to = answer;
    memset(&answer, 0, sizeof answer);
fail:
    talk_free(&prompt);
    talk_free(&answer);
    return rc;
}

/* ---- others */

/* labels 1: A is better, 0: B. */
int import_row_shp(Import *im, const Json *j)
{
    int rc, a_better;
    double ratio;
    if ((rc = import_int(im, j, "labels", 0, 1, &a_better)) < 0 ||
        (rc = import_num(im, j, "score_ratio", 0, 1e9, &ratio)) < 0)
        return rc;
    return add_prompt_and_two(im, j, "history", "human_ref_A", "human_ref_B",
                              a_better ? ratio : -ratio, json_str(import_get(j, "domain")));
}

/* Two scores -1..1 that sum to 0; those of 0 are ties. */
int import_row_webgpt(Import *im, const Json *j)
{
    int rc;
    double score[2];
    if ((rc = import_num(im, j, "score_0", -1, 1, &score[0])) < 0 ||
        (rc = import_num(im, j, "score_1", -1, 1, &score[1])) < 0)
        return rc;
    if (fabs(score[0] + score[1]) > 1e-6)
        return row_error(&im->place, FAULT_OTHER, "score_1", "%g and score_0 %g do not sum to 0",
                         score[1], score[0]);
    return add_prompt_and_two(im, j, "question.full_text", "answer_0", "answer_1", score[0],
                              json_str(import_get(j, "question.dataset")));
}

/* The post (Reddit) or article (CNN, Daily Mail) as the paper's models were asked. */
static int summarize_prompt(Import *im, const Json *j, Talk *t)
{
    int rc = 0;
    Str text = {0};
    const char *subreddit = json_str(import_get(j, "info.subreddit")),
               *title = json_str(import_get(j, "info.title")), *body;
    const bool post = import_get(j, "info.post");
    if (!post && !import_get(j, "info.article"))
        return import_missing(im, j, "info.post");
    TRY(import_str(im, j, post ? "info.post" : "info.article", &body));
    if (text_is_blank(body, strlen(body))) {
        talk_add(t, ROLE_USER, "", 0); /* counted as empty */
        return 0;
    }
    if (subreddit)
        str_addf(&text, "SUBREDDIT: r/%s\n\n", subreddit);
    if (title)
        str_addf(&text, "TITLE: %s\n\n", title);
    str_addf(&text, "%s: %s\n\nTL;DR:", post ? "POST" : "ARTICLE", body);
    talk_add(t, ROLE_USER, text.s, text.n);
fail:
    str_free(&text);
    return rc;
}

/* choice: index of the better summary; confidence 1 (surely the first) to 9, or null: a choice
 * without a rating. */
int import_row_summarize(Import *im, const Json *j)
{
    int rc = 0;
    double confidence = NAN;
    Talk prompt = {0}, answer[2] = {{0}, {0}};
    ImportPair q = {.prompt = &prompt,
                    .answer = {&answer[0], &answer[1]},
                    .prompt_name = "info",
                    .name = {"summaries[0].text", "summaries[1].text"}};
    TRY(import_int(im, j, "choice", 0, 1, &q.better));
    if (import_get(j, "extra.confidence"))
        TRY(import_num(im, j, "extra.confidence", 1, 9, &confidence));
    TRY(summarize_prompt(im, j, &prompt));
    TRY(import_talk(im, j, q.name[0], ROLE_ASSISTANT, &answer[0]));
    TRY(import_talk(im, j, q.name[1], ROLE_ASSISTANT, &answer[1]));
    q.rating = fabs(confidence - 5);
    TRY(import_add_pair(im, &q));
fail:
    talk_free(&prompt);
    talk_free(&answer[0]);
    talk_free(&answer[1]);
    return rc;
}

int import_row_ultrafeedback(Import *im, const Json *j)
{
    int rc = 0;
    char response[48], score_name[48];
    double score;
    Talk prompt = {0};
    const Json *list = import_get(j, "completions");
    if (json_kind(list) != JSON_ARR)
        return import_missing(im, j, "completions");
    if (json_len(list) == 0) {
        import_drop(im, DROP_ALONE);
        return 0;
    }
    TRY(import_talk(im, j, "instruction", ROLE_USER, &prompt));
    group_start_take(im, &prompt, "instruction", "completions");
    for (size_t i = 0; i < json_len(list); i++) {
        snprintf(response, sizeof response, "completions[%zu].response", i);
        snprintf(score_name, sizeof score_name, "completions[%zu].overall_score", i);
        TRY(import_num(im, j, score_name, 0, 10, &score));
        TRY(import_talk(im, j, response, ROLE_ASSISTANT, group_add(&im->group, score)));
    }
    TRY(import_add_group(im));
    return 0;
fail:
    talk_free(&prompt);
    import_drop_group(im);
    return rc;
}

/* chosen and rejected are whole conversations, the prompt their first message. */
int import_row_ultrafeedback_binarized(Import *im, const Json *j)
{
    int rc;
    double chosen, rejected;
    if ((rc = import_num(im, j, "score_chosen", 0, 10, &chosen)) < 0 ||
        (rc = import_num(im, j, "score_rejected", 0, 10, &rejected)) < 0)
        return rc;
    if (chosen < rejected)
        return row_error(&im->place, FAULT_OTHER, "score_chosen",
                         "%g is below score_rejected %g, yet this answer is chosen", chosen,
                         rejected);
    return add_prompt_and_two(im, j, "prompt", "chosen", "rejected", chosen - rejected, NULL);
}
