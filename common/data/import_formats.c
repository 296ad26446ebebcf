/* import_formats.c - the table of public data sets, and the row functions of those without ratings.
 *
 * A row function maps fields and counts what it drops; reading, writing, duplicates and the split
 * are import.c's. Sources of the schemas: the data sets' own cards. Tested by
 * tests/unit/test_import_sets.c. */
#include "common/data/import_impl.h"

#include "common/base/error.h"

#include <math.h>
#include <string.h>

static int row_hh(Import *im, const Json *j)
{
    return import_add_parsed(im, j, RECORD_PAIR);
}

/* Records of record.h, any kind: everything that is wrong is an error, and the source stays. */
static int row_ours(Import *im, const Json *j)
{
    Record r;
    const int rc = record_parse_at(&r, j, record_kind_of(j), im->place.from, &im->place.fault);
    if (rc < 0)
        return rc;
    const int i = VEC_GROW(im->made, im->n_made, im->cap_made);
    im->made[i] = r;
    return 0;
}

static int row_alpaca(Import *im, const Json *j)
{
    if (!import_get(j, "instruction"))
        return import_missing(im, j, "instruction");
    return import_get(j, "output") ? import_add_parsed(im, j, RECORD_SFT)
                                   : import_missing(im, j, "output");
}

static int row_sharegpt(Import *im, const Json *j)
{
    return import_get(j, "conversations") ? import_add_parsed(im, j, RECORD_SFT)
                                          : import_missing(im, j, "conversations");
}

static int add_labelled(Import *im, const Json *j, const char *prompt_name, SafetyLabel label)
{
    int rc = 0;
    Talk prompt = {0}, answer = {0};
    TRY(import_talk(im, j, prompt_name, ROLE_USER, &prompt));
    TRY(import_talk(im, j, "response", ROLE_ASSISTANT, &answer));
    TRY(import_add_labelled(im, &prompt, prompt_name, &answer, "response", label));
fail:
    talk_free(&prompt);
    talk_free(&answer);
    return rc;
}

static int row_diasafety(Import *im, const Json *j)
{
    const char *label;
    const int rc = import_str(im, j, "label", &label);
    if (rc < 0)
        return rc;
    if (strcmp(label, "Safe") && strcmp(label, "Unsafe"))
        return row_error(&im->place, FAULT_OTHER, "label", "found '%.40s', expected Safe or Unsafe",
                         label);
    return add_labelled(im, j, "context", strcmp(label, "Safe") ? SAFETY_UNSAFE : SAFETY_SAFE);
}

static int row_beavertails(Import *im, const Json *j)
{
    SafetyLabel label;
    const int rc = import_bool(im, j, "is_safe", true, &label);
    return rc < 0 ? rc : add_labelled(im, j, "prompt", label);
}

/* Two preferences in one row, by helpfulness and by safety; labels of the answers go with both. */
static int row_pku(Import *im, const Json *j)
{
    int rc = 0;
    const char *better =
        im->o->task == TASK_SAFETY ? "safer_response_id" : "better_response_id";
    Talk prompt = {0}, answer[2] = {{0}, {0}};
    ImportPair q = {.prompt = &prompt,
                    .answer = {&answer[0], &answer[1]},
                    .prompt_name = "prompt",
                    .name = {"response_0", "response_1"},
                    .rating = NAN};
    TRY(import_talk(im, j, "prompt", ROLE_USER, &prompt));
    TRY(import_talk(im, j, "response_0", ROLE_ASSISTANT, &answer[0]));
    TRY(import_talk(im, j, "response_1", ROLE_ASSISTANT, &answer[1]));
    TRY(import_int(im, j, better, 0, 1, &q.better));
    TRY(import_bool(im, j, "is_response_0_safe", false, &q.safety[0]));
    TRY(import_bool(im, j, "is_response_1_safe", false, &q.safety[1]));
    q.source = im->o->task == TASK_SAFETY ? "safety" : "helpful";
    TRY(import_add_pair(im, &q));
fail:
    talk_free(&prompt);
    talk_free(&answer[0]);
    talk_free(&answer[1]);
    return rc;
}

/* For evaluation; the source names the subset. */
static int row_reward_bench(Import *im, const Json *j)
{
    int rc = 0;
    Talk prompt = {0}, answer[2] = {{0}, {0}};
    ImportPair q = {.prompt = &prompt,
                    .answer = {&answer[0], &answer[1]},
                    .prompt_name = "prompt",
                    .name = {"chosen", "rejected"},
                    .rating = NAN};
    TRY(import_talk(im, j, "prompt", ROLE_USER, &prompt));
    TRY(import_talk(im, j, "chosen", ROLE_ASSISTANT, &answer[0]));
    TRY(import_talk(im, j, "rejected", ROLE_ASSISTANT, &answer[1]));
    TRY(import_str(im, j, "subset", &q.source));
    TRY(import_add_pair(im, &q));
fail:
    talk_free(&prompt);
    talk_free(&answer[0]);
    talk_free(&answer[1]);
    return rc;
}

/* Levels are ours, but those of HelpSteer 2 and 3, whose three steps have the names of Llama 2's. */
const Importer importers[] = {
    {"hh-rlhf", "Anthropic hh-rlhf", "chosen, rejected", RECORD_PAIR, .row = row_hh},
    {"pku-safe-rlhf", "PKU-SafeRLHF",
     "prompt, response_0, response_1, better_response_id, safer_response_id, is_response_0_safe, "
     "is_response_1_safe",
     RECORD_PAIR, IMPORT_TASK, .row = row_pku},
    {"beavertails", "BeaverTails", "prompt, response, is_safe", RECORD_LABELLED,
     .row = row_beavertails},
    {"diasafety", "DiaSafety", "context, response, label", RECORD_LABELLED, .row = row_diasafety},
    {"helpsteer", "HelpSteer and HelpSteer2 ratings", "prompt, response, helpfulness", RECORD_PAIR,
     IMPORT_RATED | IMPORT_SCORED, {3, 2, 1}, "gap of helpfulness, 1 to 4", import_row_helpsteer},
    {"helpsteer2", "HelpSteer2 preferences", "prompt, response_1, response_2, preference_strength",
     RECORD_PAIR, IMPORT_RATED, {3, 2, 1}, "preference_strength, 1 to 3", import_row_helpsteer2},
    {"helpsteer3", "HelpSteer3 preferences", "context, response1, response2, overall_preference",
     RECORD_PAIR, IMPORT_RATED, {3, 2, 1}, "overall_preference, 1 to 3", import_row_helpsteer3},
    {"shp", "Stanford Human Preferences",
     "history, human_ref_A, human_ref_B, labels, score_ratio", RECORD_PAIR, IMPORT_RATED, {8, 4, 2},
     "score_ratio, 1 and up", import_row_shp},
    {"webgpt", "WebGPT comparisons", "question, answer_0, answer_1, score_0, score_1", RECORD_PAIR,
     IMPORT_RATED, {0.75, 0.5, 0.25}, "score, 0 to 1", import_row_webgpt},
    {"summarize", "OpenAI summarize_from_feedback comparisons", "info, summaries, choice, extra",
     RECORD_PAIR, IMPORT_RATED, {4, 3, 2}, "distance of confidence from 5, 0 to 4",
     import_row_summarize},
    {"ultrafeedback", "UltraFeedback", "instruction, completions", RECORD_PAIR,
     IMPORT_RATED | IMPORT_SCORED, {4, 2, 1}, "gap of overall_score, 0 to 9",
     import_row_ultrafeedback},
    {"ultrafeedback-binarized", "UltraFeedback binarized",
     "prompt, chosen, rejected, score_chosen, score_rejected", RECORD_PAIR, IMPORT_RATED, {4, 2, 1},
     "gap of the scores, 0 to 9", import_row_ultrafeedback_binarized},
    {"tulu-human-pref", "Tulu human preferences", "prompt, completion_a, completion_b, strength",
     RECORD_PAIR, IMPORT_RATED, {3, 2, 1}, "strength, 1 or 2", import_row_tulu},
    {"reward-bench", "RewardBench", "prompt, chosen, rejected, subset", RECORD_PAIR,
     .row = row_reward_bench},
    {"alpaca", "Alpaca", "instruction, input, output", RECORD_SFT, .row = row_alpaca},
    {"sharegpt", "ShareGPT", "conversations", RECORD_SFT, .row = row_sharegpt},
    {"ours", "records of any tool that writes TRL's fields", "see 'rlhf import --help'", RECORD_PAIR,
     .row = row_ours},
    {0},
};
