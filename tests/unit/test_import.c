/* test_import.c - importers: hand-made rows in each set's real fields with known results, options,
 * the report, and the public files where present. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/data/import.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    char dir[64], in[80], out[80], held[80], other[80];
} Folder;

static int setup(void **state)
{
    static Folder f;
    strcpy(f.dir, "/tmp/test_import.XXXXXX");
    if (!mkdtemp(f.dir))
        return -1;
    snprintf(f.in, sizeof f.in, "%s/in.jsonl", f.dir);
    snprintf(f.out, sizeof f.out, "%s/out.jsonl", f.dir);
    snprintf(f.held, sizeof f.held, "%s/held.jsonl.zst", f.dir);
    snprintf(f.other, sizeof f.other, "%s/other.jsonl", f.dir);
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    return dir_remove(((Folder *)*state)->dir);
}

static void put(const char *path, const char *text)
{
    assert_int_equal(file_write_atomic(path, text, strlen(text)), 0);
}

/* The fixtures are written with ' for ". */
static void put_rows(const char *path, const char *rows)
{
    char *text = xstrdup(rows);
    for (char *c = text; *c; c++)
        *c = *c == '\'' ? '"' : *c;
    put(path, text);
    free(text);
}

static void assert_report_has(ImportReport *r, const char *line)
{
    Str s = {0};
    import_report_print(r, &s);
    if (!strstr(str_get(&s), line))
        fail_msg("'%s' is not in the report:\n%s", line, str_get(&s));
    str_free(&s);
}

/* A record on one line: "user:q|assistant:x| + chosen - rejected [strength safety/safety source]". */
static void describe(const Record *r, Str *out)
{
    static const char *const safety[] = {"?", "safe", "unsafe"};
    for (int i = 0; i < r->n_messages; i++)
        str_addf(out, "%s:%s|", role_name(r->messages[i].role), r->messages[i].text);
    if (r->kind == RECORD_PAIR)
        str_addf(out, " + %s - %s [%s %s/%s", r->text[0], r->text[1], strength_name(r->strength),
                 safety[r->safety[0]], safety[r->safety[1]]);
    if (r->kind == RECORD_LABELLED)
        str_addf(out, " + %s [%s", r->text[0], safety[r->safety[0]]);
    if (r->kind == RECORD_SFT)
        str_add(out, " [sft");
    str_addf(out, " %s]", r->source ? r->source : "-");
}

static int run(Folder *f, const char *format, ImportOptions o, ImportReport *r)
{
    const Importer *imp = importer_find(format);
    assert_non_null(imp);
    return import_run(imp, f->in, f->out, &o, r);
}

/* Imports the rows and compares what was written, a line a record, and what was dropped. */
static void check(Folder *f, const char *format, const char *rows, ImportOptions o,
                  const char *expected, const int64_t *dropped)
{
    ImportReport r;
    RecordSet s = {0};
    Str out = {0};
    put_rows(f->in, rows);
    if (run(f, format, o, &r) < 0)
        fail_msg("%s: %s", format, error_text());
    assert_int_equal(record_set_read(&s, f->out, importer_find(format)->kind, BAD_ROW_ERROR), 0);
    for (int64_t i = 0; i < s.n; i++) {
        describe(&s.at[i], &out);
        str_add(&out, "\n");
    }
    if (strcmp(str_get(&out), expected))
        fail_msg("%s gives\n%sexpected\n%s", format, str_get(&out), expected);
    assert_int_equal(s.n, r.n_kept);
    for (int d = 0; d < DROP_COUNT; d++)
        if (r.dropped[d] != (dropped ? dropped[d] : 0))
            fail_msg("%s: drop %d is %d", format, d, (int)r.dropped[d]);
    record_set_free(&s);
    str_free(&out);
    import_report_free(&r);
}

#define DROPS(...) ((const int64_t[DROP_COUNT]){__VA_ARGS__})
#define HH(q, a) "'\\n\\nHuman: " q "\\n\\nAssistant: " a "'"

static void test_hh_rows(void **state)
{
    Folder *f = *state;
    ImportReport r;
    static const char rows[] = "{'chosen':" HH("q", "ab") ",'rejected':" HH("q", "abc") "}\n"
                               "{'chosen':" HH("q", "ab") ",'rejected':" HH("q", "abc ") "}\n"
                               "{'chosen':" HH("q", "a") ",'rejected':" HH("q", "a") "}\n"
                               "{'chosen':" HH("q", "") ",'rejected':" HH("q", "a") "}\n"
                               "{'chosen':" HH("q", "a") ",'rejected':" HH("z", "b") "}\n"
                               "{'chosen':" HH("q", "\xc3\xa9") ",'rejected':" HH("q", "b") "}\n"
                               "{'chosen':" HH("q", "b") ",'rejected':" HH("q", "\xc3\xa9") "}\n"
                               "{'chosen':" HH("q", "a") "}\n";
    put_rows(f->in, rows);
    assert_int_equal(run(f, "hh-rlhf", (ImportOptions){0}, &r), ERR_DATA);
    assert_non_null(strstr(error_text(), "in.jsonl:8:1: rejected: missing"));
    assert_false(file_exists(f->out)); /* nothing half-written */
    import_report_free(&r);

    assert_int_equal(run(f, "hh-rlhf", (ImportOptions){.tagged = true, .on_bad = BAD_ROW_SKIP}, &r), 0);
    assert_int_equal(r.n_read, 8);
    assert_int_equal(r.n_kept, 3);
    assert_int_equal(r.dropped[DROP_DUPLICATE], 1); /* the second, blanks aside */
    assert_int_equal(r.dropped[DROP_IDENTICAL], 1);
    assert_int_equal(r.dropped[DROP_EMPTY], 1);
    assert_int_equal(r.dropped[DROP_NO_COMMON_PROMPT], 1);
    assert_int_equal(r.dropped[DROP_BAD_ROW], 1);
    assert_int_equal(r.n_contradict, 1); /* the seventh turns the sixth round */
    assert_int_equal(r.n_prompts, 1);
    assert_int_equal(r.chars[LENGTH_ANSWER].at[1], 1); /* one e with an accent */
    assert_report_has(&r, "kept      3 preference records\n");
    assert_report_has(&r, "no common prompt");
    assert_report_has(&r, "the first bad row: ");
    assert_report_has(&r, "contradict an earlier record         1   33.3 %\n");
    import_report_free(&r);

    RecordSet s = {0};
    assert_int_equal(record_set_read(&s, f->out, RECORD_PAIR, BAD_ROW_ERROR), 0);
    assert_int_equal(s.n, 3);
    assert_true(s.at[0].tagged);
    assert_string_equal(s.at[0].source, "hh-rlhf");
    assert_string_equal(s.at[0].text[1], "abc");
    record_set_free(&s);
}

static void test_ours(void **state)
{
    Folder *f = *state;
    ImportReport r;
    put_rows(f->in, "{'prompt':'p','chosen':'a','rejected':'b','strength':'slight','margin':0.5,"
                    "'chosen_safe':true,'rejected_safe':false,'source':'s'}\n"
                    "{'prompt':'p','chosen':'c','rejected':'b','chosen_safe':false,'rejected_safe':true}\n"
                    "{'prompt':'p','chosen':'d','rejected':'b','chosen_safe':false,'rejected_safe':false}\n"
                    "{'prompt':'p','chosen':'f','rejected':'b','chosen_safe':false,'rejected_safe':false}\n"
                    "{'prompt':'p','chosen':'e','rejected':'b','chosen_safe':true}\n");
    assert_int_equal(run(f, "ours", (ImportOptions){0}, &r), 0);
    assert_int_equal(r.strength[STRENGTH_SLIGHT], 1);
    assert_int_equal(r.strength[STRENGTH_UNKNOWN], 4);
    assert_int_equal(r.n_margin, 1);
    static const int64_t bins[4] = {1, 0, 2, 1}; /* the last row has one label only */
    assert_memory_equal(r.safety_bins, bins, sizeof bins);
    assert_report_has(&r, "  chosen unsafe, rejected safe         1   20.0 %  ########\n");
    assert_report_has(&r, "  without both labels                  1   20.0 %");
    assert_report_has(&r, "  with a margin of its own             1");
    import_report_free(&r);

    put_rows(f->in, "{'prompt':'p','chosen':'a','rejected':'b'}\n{'prompt':'p'}\n");
    assert_int_equal(run(f, "ours", (ImportOptions){0}, &r), ERR_DATA);
    assert_non_null(strstr(error_text(), "in.jsonl:2: a prompt record among preference records"));
    import_report_free(&r);
    assert_null(importer_find("nothing"));
}

/* ---- one fixture a set: fields as on its card, texts ours */

static void test_labelled_sets(void **state)
{
    Folder *f = *state;
    check(f, "diasafety",
          "[{'context':'c','response':'r','category':'x','label':'Safe'},\n"
          "{'context':'c','response':'s','category':'x','label':'Unsafe'}]",
          (ImportOptions){0}, "user:c| + r [safe diasafety]\nuser:c| + s [unsafe diasafety]\n", NULL);
    check(f, "beavertails",
          "{'prompt':'q','response':'a','category':{'animal_abuse':false,"
          "'drug_abuse,weapons,banned_substance':true},'is_safe':false}\n"
          "{'prompt':'q','response':'b','category':{'animal_abuse':false},'is_safe':true}\n"
          "{'prompt':'q','response':' ','category':{},'is_safe':true}\n",
          (ImportOptions){0}, "user:q| + a [unsafe beavertails]\nuser:q| + b [safe beavertails]\n",
          DROPS(1));
}

static void test_pku(void **state)
{
    static const char rows[] =
        "{'prompt':'q','response_0':'a','response_1':'b','prompt_source':'x',"
        "'response_0_source':'Alpaca-7B','response_1_source':'Alpaca2-7B','is_response_0_safe':false,"
        "'is_response_1_safe':true,'response_0_harm_category':{'Violence':true},"
        "'response_1_harm_category':{'Violence':false},'response_0_severity_level':2,"
        "'response_1_severity_level':0,'better_response_id':0,'safer_response_id':1,"
        "'response_0_sha256':'0','response_1_sha256':'1'}\n"
        /* an older revision */
        "{'prompt':'q','response_0':'c','response_1':'d','is_response_0_safe':true,"
        "'is_response_1_safe':true,'better_response_id':1,'safer_response_id':1}\n";
    check(*state, "pku-safe-rlhf", rows, (ImportOptions){0},
          "user:q| + a - b [unknown unsafe/safe pku-safe-rlhf/helpful]\n"
          "user:q| + d - c [unknown safe/safe pku-safe-rlhf/helpful]\n",
          NULL);
    check(*state, "pku-safe-rlhf", rows, (ImportOptions){.task = TASK_SAFETY},
          "user:q| + b - a [unknown safe/unsafe pku-safe-rlhf/safety]\n"
          "user:q| + d - c [unknown safe/safe pku-safe-rlhf/safety]\n",
          NULL);
}

static void test_helpsteer(void **state)
{
#define RATED(q, a, h) "{'prompt':'" q "','response':'" a "','helpfulness':" h ",'correctness':3,'coherence':4,'complexity':1,'verbosity':1}\n"
    /* two answers; a tie; a prompt with one answer; four answers, the first pair of them tied */
    static const char rows[] = RATED("p", "a", "1") RATED("p", "b", "4") RATED("r", "a", "2") RATED("r", "b", "2")
        RATED("s", "a", "3") RATED("t", "a", "0") RATED("t", "b", "0") RATED("t", "c", "1") RATED("t", "d", "2");
    check(*state, "helpsteer", rows, (ImportOptions){0},
          "user:p| + b - a [significant ?/? helpsteer]\n"
          "user:t| + c - a [slight ?/? helpsteer]\nuser:t| + d - a [better ?/? helpsteer]\n"
          "user:t| + c - b [slight ?/? helpsteer]\nuser:t| + d - b [better ?/? helpsteer]\n"
          "user:t| + d - c [slight ?/? helpsteer]\n",
          DROPS([DROP_TIE] = 2, [DROP_ALONE] = 1));
    check(*state, "helpsteer", rows, (ImportOptions){.pairs = PAIRS_BEST_REST},
          "user:p| + b - a [significant ?/? helpsteer]\n"
          "user:t| + d - a [better ?/? helpsteer]\nuser:t| + d - b [better ?/? helpsteer]\n"
          "user:t| + d - c [slight ?/? helpsteer]\n",
          DROPS([DROP_TIE] = 1, [DROP_ALONE] = 1));
    check(*state, "helpsteer", rows, (ImportOptions){.pairs = PAIRS_BEST_WORST},
          "user:p| + b - a [significant ?/? helpsteer]\nuser:t| + d - a [better ?/? helpsteer]\n",
          DROPS([DROP_TIE] = 1, [DROP_ALONE] = 1));

    check(*state, "helpsteer2",
          "{'split':'train','prompt':'q','response_1':'a','response_2':'b','preference_strength':3,"
          "'preference_statement':'@Response 2 is better','preference_elaboration':'x',"
          "'three_most_similar_preferences':[],'all_preferences_unprocessed':[]}\n"
          "{'split':'train','prompt':'q','response_1':'a','response_2':'c','preference_strength':-2}\n"
          "{'split':'train','prompt':'q','response_1':'a','response_2':'d','preference_strength':0}\n"
          "{'split':'validation','prompt':'q','response_1':'a','response_2':'e','preference_strength':-1}\n"
          "{'split':'train','prompt':'x\\n<extra_id_1>Assistant\\ny\\n<extra_id_1>User\\nz','response_1':'a',"
          "'response_2':'b','preference_strength':-1}\n",
          (ImportOptions){.split = "train"},
          "user:q| + b - a [significant ?/? helpsteer2]\nuser:q| + a - c [better ?/? helpsteer2]\n"
          "user:x|assistant:y|user:z| + a - b [slight ?/? helpsteer2]\n",
          DROPS([DROP_TIE] = 1, [DROP_SPLIT] = 1));
    check(*state, "helpsteer3",
          "{'domain':'code','language':'python','context':[{'role':'user','content':'q'}],'response1':'a',"
          "'response2':'b','overall_preference':-2,'individual_preference':[{'score':-2,'reasoning':'x',"
          "'feedback1':'y','feedback2':'z'}]}\n"
          "{'domain':'general','language':'english','context':[{'role':'user','content':'q'},"
          "{'role':'assistant','content':'x'},{'role':'user','content':'r'}],'response1':'a',"
          "'response2':'b','overall_preference':1,'individual_preference':[]}\n",
          (ImportOptions){0},
          "user:q| + a - b [better ?/? helpsteer3/code]\n"
          "user:q|assistant:x|user:r| + b - a [slight ?/? helpsteer3/general]\n",
          NULL);
}

static void test_shp(void **state)
{
    static const char rows[] =
        "{'post_id':'x1','domain':'askculinary_train','upvote_ratio':0.98,'history':'q','c_root_id_A':'1',"
        "'c_root_id_B':'2','created_at_utc_A':1,'created_at_utc_B':2,'score_A':3,'score_B':27,"
        "'human_ref_A':'a','human_ref_B':'b','labels':0,'seconds_difference':9.0,'score_ratio':9.0}\n"
        "{'domain':'d','history':'q','human_ref_A':'c','human_ref_B':'d','labels':1,'score_ratio':4.0}\n"
        "{'domain':'d','history':'q','human_ref_A':'e','human_ref_B':'f','labels':1,'score_ratio':2.5}\n"
        "{'domain':'d','history':'q','human_ref_A':'g','human_ref_B':'h','labels':1,'score_ratio':1.2}\n";
    check(*state, "shp", rows, (ImportOptions){0},
          "user:q| + b - a [significant ?/? shp/askculinary_train]\nuser:q| + c - d [better ?/? shp/d]\n"
          "user:q| + e - f [slight ?/? shp/d]\nuser:q| + g - h [negligible ?/? shp/d]\n",
          NULL);
    check(*state, "shp", rows,
          (ImportOptions){.levels = (const double[]){9.5, 3, 1}, .n_levels = 3, .min_rating = 2},
          "user:q| + b - a [better ?/? shp/askculinary_train]\nuser:q| + c - d [better ?/? shp/d]\n"
          "user:q| + e - f [slight ?/? shp/d]\n",
          DROPS([DROP_CLOSE] = 1));
}

static void test_webgpt(void **state)
{
#define WEBGPT(q, a, b, s, t) "{'question':{'full_text':'" q "','dataset':'eli5','id':'1'},'quotes_0':{'title':[],'extract':[]},'answer_0':'" a "','tokens_0':{'prefix':[],'completion':[]},'score_0':" s ",'quotes_1':{},'answer_1':'" b "','tokens_1':{},'score_1':" t "}\n"
    check(*state, "webgpt",
          WEBGPT("q", "a [1]", "b", "1.0", "-1.0") WEBGPT("q", "c", "d", "-0.5", "0.5")
              WEBGPT("q", "e", "f", "0.25", "-0.25") WEBGPT("q", "g", "h", "-0.1", "0.1")
                  WEBGPT("q", "i", "j", "0", "0") WEBGPT("q", "k", "", "1", "-1"),
          (ImportOptions){0},
          "user:q| + a [1] - b [significant ?/? webgpt/eli5]\nuser:q| + d - c [better ?/? webgpt/eli5]\n"
          "user:q| + e - f [slight ?/? webgpt/eli5]\nuser:q| + h - g [negligible ?/? webgpt/eli5]\n",
          DROPS([DROP_TIE] = 1, [DROP_EMPTY] = 1));
}

static void test_summarize(void **state)
{
#define SUMMARY(info, choice, confidence) "{'info':{" info "},'summaries':[{'text':' s0','policy':'sup1','note':null},{'text':' s1','policy':'ref','note':null}],'choice':" choice ",'worker':'w','batch':'b1','split':'train','extra':{'confidence':" confidence "}}\n"
    check(*state, "summarize",
          SUMMARY("'id':'t3_1','post':'long','title':'T','subreddit':'tifu','site':null,'article':null", "1", "9")
              SUMMARY("'id':'2','post':null,'title':'T','subreddit':null,'site':'cnndm','article':'news'", "0", "2")
                  SUMMARY("'post':'p3','title':null,'subreddit':'tifu'", "0", "null")
                      SUMMARY("'post':'p4','title':null,'subreddit':'tifu'", "0", "5")
                          SUMMARY("'post':' ','title':null,'subreddit':'tifu'", "0", "5"),
          (ImportOptions){0},
          "user:SUBREDDIT: r/tifu\n\nTITLE: T\n\nPOST: long\n\nTL;DR:| +  s1 -  s0 [significant ?/? summarize]\n"
          "user:TITLE: T\n\nARTICLE: news\n\nTL;DR:| +  s0 -  s1 [better ?/? summarize]\n"
          "user:SUBREDDIT: r/tifu\n\nPOST: p3\n\nTL;DR:| +  s0 -  s1 [unknown ?/? summarize]\n"
          "user:SUBREDDIT: r/tifu\n\nPOST: p4\n\nTL;DR:| +  s0 -  s1 [negligible ?/? summarize]\n",
          DROPS([DROP_EMPTY] = 1));
}

static void test_ultrafeedback(void **state)
{
#define ANSWER(text, score) "{'model':'m','principle':'helpfulness','custom_system_prompt':'s','response':'" text "','annotations':{'helpfulness':{'Rating':'5','Rationale':'x'},'honesty':{'Rating':'N/A'}},'critique':'c','overall_score':" score "}"
    check(*state, "ultrafeedback",
          "{'source':'evol_instruct','instruction':'q','models':['m'],'completions':["
          ANSWER("a", "3.0") "," ANSWER("b", "8.5") "," ANSWER("c", "7.5") "," ANSWER("d", "7.5") "]}\n"
          "{'source':'x','instruction':'q','models':[],'completions':[]}\n",
          (ImportOptions){0},
          "user:q| + b - a [significant ?/? ultrafeedback]\nuser:q| + c - a [significant ?/? ultrafeedback]\n"
          "user:q| + d - a [significant ?/? ultrafeedback]\nuser:q| + b - c [slight ?/? ultrafeedback]\n"
          "user:q| + b - d [slight ?/? ultrafeedback]\n",
          DROPS([DROP_TIE] = 1, [DROP_ALONE] = 1));
#define TURNS(text) "[{'content':'q','role':'user'},{'content':'" text "','role':'assistant'}]"
    check(*state, "ultrafeedback-binarized",
          "{'prompt':'q','prompt_id':'0','chosen':" TURNS("a") ",'rejected':" TURNS("b") ",'messages':" TURNS("a")
          ",'score_chosen':8.5,'score_rejected':6.5}\n"
          "{'prompt':'q','prompt_id':'0','chosen':" TURNS("c") ",'rejected':" TURNS("d") ",'messages':" TURNS("c")
          ",'score_chosen':8.5,'score_rejected':8.5}\n"
          "{'prompt':'q','prompt_id':'0','chosen':" TURNS("e") ",'rejected':" TURNS("f") ",'messages':" TURNS("e")
          ",'score_chosen':8.5,'score_rejected':8.0}\n",
          (ImportOptions){0},
          "user:q| + a - b [better ?/? ultrafeedback-binarized]\n"
          "user:q| + e - f [negligible ?/? ultrafeedback-binarized]\n",
          DROPS([DROP_TIE] = 1));
}

static void test_other_sets(void **state)
{
    check(*state, "tulu-human-pref",
          "{'prompt':'p','completion_a':'a','completion_b':'b','strength':-2}\n"
          "{'prompt':'p','completion_a':'a','completion_b':'b','strength':0}\n"
          "{'prompt':'p','completion_a':'a','completion_b':'c','strength':1}\n",
          (ImportOptions){0},
          "user:p| + b - a [better ?/? tulu-human-pref]\nuser:p| + a - c [slight ?/? tulu-human-pref]\n",
          DROPS([DROP_TIE] = 1));
    check(*state, "reward-bench",
          "{'prompt':'q','chosen':'a','chosen_model':'m','rejected':'b','rejected_model':'n',"
          "'subset':'alpacaeval-easy','id':7}\n",
          (ImportOptions){0}, "user:q| + a - b [unknown ?/? reward-bench/alpacaeval-easy]\n", NULL);
    check(*state, "alpaca",
          "{'instruction':'do','input':'this','output':'done'}\n{'instruction':'do','input':'','output':' '}\n",
          (ImportOptions){0}, "user:do\n\nthis|assistant:done| [sft alpaca]\n", DROPS(1));
    check(*state, "sharegpt",
          "{'id':'7','conversations':[{'from':'system','value':'s'},{'from':'human','value':'q'},"
          "{'from':'gpt','value':'a'}]}\n",
          (ImportOptions){0}, "system:s|user:q|assistant:a| [sft sharegpt]\n", NULL);
}

/* ---- rows that are refused: the place in the row and the reason */

static void test_malformed_rows(void **state)
{
    Folder *f = *state;
    static const struct {
        const char *format, *row, *error;
    } rows[] = {
        {"hh-rlhf", "{'chosen':'x'}", "1:1: rejected: missing; a preference record has"},
        {"hh-rlhf", "{'chosen':7,'rejected':'x'}", "1:11: chosen: found an integer, expected a string"},
        {"diasafety", "{'context':'c','response':'r'}",
         "1:1: label: missing; a row of DiaSafety has context, response, label (found: context, response)"},
        {"diasafety", "{'context':'c','response':'r','label':'Good'}",
         "1:39: label: found 'Good', expected Safe or Unsafe"},
        {"diasafety", "{'context':null,'response':'r','label':'Safe'}", "1:12: context: missing"},
        {"beavertails", "{'prompt':'q','response':'a','is_safe':'yes'}",
         "1:40: is_safe: found a string, expected true or false"},
        {"beavertails", "{'prompt':'q','response':{},'is_safe':true}", "1:26: response: has no field 'role'"},
        {"pku-safe-rlhf", "{'prompt':'q','response_0':'a','response_1':'b','better_response_id':2}",
         "1:70: better_response_id: found 2, expected 0 to 1"},
        {"pku-safe-rlhf", "{'prompt':'q','response_0':'a','response_1':'b'}",
         "1:1: better_response_id: missing; a row of PKU-SafeRLHF has prompt, response_0"},
        {"pku-safe-rlhf",
         "{'prompt':'q','response_0':'a','response_1':'b','better_response_id':1,'is_response_0_safe':1}",
         "1:93: is_response_0_safe: found an integer"},
        {"helpsteer", "{'prompt':'q','response':'a','helpfulness':5}",
         "1:44: helpfulness: found 5, expected 0 to 4"},
        {"helpsteer", "{'prompt':'q','response':'a','helpfulness':'4'}",
         "1:44: helpfulness: found a string, expected a number"},
        {"helpsteer2", "{'prompt':'q','response_1':'a','response_2':'b','preference_strength':1.5}",
         "1:71: preference_strength: found 1.5, expected an integer"},
        {"helpsteer2", "{'prompt':'a<extra_id_1>Robot\\nb','response_1':'a','response_2':'b','preference_strength':1}",
         "1:11: prompt: <extra_id_1> is followed by neither 'User' nor 'Assistant'"},
        {"helpsteer3", "{'context':[{'role':'tool','content':'x'}],'response1':'a','response2':'b','overall_preference':1}",
         "1:13: context[0]: unknown role 'tool'"},
        {"shp", "{'history':'q','human_ref_A':'a','human_ref_B':'b','labels':1}", "1:1: score_ratio: missing"},
        {"shp", "{'history':'q','human_ref_A':'a','human_ref_B':'b','labels':true,'score_ratio':2}",
         "1:61: labels: found a boolean, expected a number"},
        {"webgpt", "{'question':{'id':'1'},'answer_0':'a','answer_1':'b','score_0':1,'score_1':-1}",
         "1:13: question.full_text: missing; a row of WebGPT comparisons has question"},
        {"webgpt", "{'question':{'full_text':'q'},'answer_0':'a','answer_1':'b','score_0':1,'score_1':1}",
         "1:83: score_1: 1 and score_0 1 do not sum to 0"},
        {"webgpt", "{'question':{'full_text':'q'},'answer_0':'a','answer_1':'b','score_0':-3,'score_1':3}",
         "1:71: score_0: found -3, expected -1 to 1"},
        {"summarize", "{'info':{'post':'p'},'summaries':[{'text':'a'}],'choice':0}",
         "1:34: summaries[1].text: missing"},
        {"summarize", "{'info':{'post':'p'},'summaries':[{'text':'a'},{'text':3}],'choice':0}",
         "1:56: summaries[1].text: found an integer"},
        {"summarize", "{'info':{'id':'p'},'summaries':[{'text':'a'},{'text':'b'}],'choice':0}",
         "1:9: info.post: missing"},
        {"summarize", "{'info':{'post':'p'},'summaries':[{'text':'a'},{'text':'b'}],'choice':0,'extra':{'confidence':10}}",
         "1:95: extra.confidence: found 10, expected 1 to 9"},
        {"ultrafeedback", "{'instruction':'q','completions':{}}", "1:34: completions: missing"},
        {"ultrafeedback", "{'instruction':'q','completions':[{'response':'a','overall_score':1},{'response':'b'}]}",
         "1:70: completions[1].overall_score: missing"},
        {"ultrafeedback", "{'instruction':'q','completions':[{'response':'a','overall_score':1},{'response':1,'overall_score':1}]}",
         "1:82: completions[1].response: found an integer"},
        {"ultrafeedback-binarized", "{'prompt':'q','chosen':'a','rejected':'b','score_chosen':1,'score_rejected':2}",
         "1:58: score_chosen: 1 is below score_rejected 2"},
        {"tulu-human-pref", "{'prompt':'q','completion_a':'a','completion_b':'b','strength':3}",
         "1:64: strength: found 3, expected -2 to 2"},
        {"reward-bench", "{'prompt':'q','chosen':'a','rejected':'b'}", "1:1: subset: missing; a row of RewardBench"},
        {"alpaca", "{'instruction':'q','input':''}", "1:1: output: missing; a row of Alpaca has instruction"},
        {"sharegpt", "{'messages':[]}", "1:1: conversations: missing"},
        {"ours", "{'prompt':'q','chosen':'','rejected':'b'}", "1:24: chosen: empty answer"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        ImportReport r;
        put_rows(f->in, rows[i].row);
        const int rc = run(f, rows[i].format, (ImportOptions){0}, &r);
        if (rc != ERR_DATA)
            fail_msg("%s: accepted (%d): %s", rows[i].format, rc, rows[i].row);
        const char *found = strstr(error_text(), "in.jsonl:");
        if (!found || strncmp(found + 9, rows[i].error, strlen(rows[i].error)))
            fail_msg("%s\nfound    %s\nexpected in.jsonl:%s", rows[i].row, error_text(), rows[i].error);
        assert_false(file_exists(f->out));
        import_report_free(&r);
    }
}

/* ---- options */

static void assert_refused(Folder *f, const char *format, ImportOptions o, const char *error)
{
    ImportReport r;
    assert_int_equal(run(f, format, o, &r), ERR_CONFIG);
    if (!strstr(error_text(), error))
        fail_msg("found '%s', expected '%s'", error_text(), error);
    import_report_free(&r);
}

static void test_options(void **state)
{
    Folder *f = *state;
    ImportReport r;
    put_rows(f->in, "{'prompt':'p','chosen':'a','rejected':'b'}\n");
    assert_refused(f, "hh-rlhf", (ImportOptions){.levels = (const double[]){3, 2, 1}, .n_levels = 3},
                   "levels: hh-rlhf rates no pairs");
    assert_refused(f, "hh-rlhf", (ImportOptions){.min_rating = 1}, "min_rating: hh-rlhf rates no pairs");
    assert_refused(f, "shp", (ImportOptions){.levels = (const double[]){1, 2, 3}, .n_levels = 3},
                   "levels: expected three falling numbers");
    assert_refused(f, "shp", (ImportOptions){.levels = (const double[]){2, 1}, .n_levels = 2},
                   "levels: expected three falling numbers");
    assert_refused(f, "shp", (ImportOptions){.task = TASK_SAFETY}, "task: shp holds one preference");
    assert_refused(f, "shp", (ImportOptions){.pairs = PAIRS_BEST_REST}, "pairs: shp holds pairs already");
    assert_refused(f, "shp", (ImportOptions){.held_out_every = 2}, "held_out and held_out_every");
    assert_int_equal(run(f, "ours", (ImportOptions){.split = "train"}, &r), ERR_DATA);
    assert_non_null(strstr(error_text(), "in.jsonl:1:1: split: missing"));
    import_report_free(&r);
    assert_int_equal(run(f, "shp", (ImportOptions){.on_bad = BAD_ROW_SKIP}, &r), ERR_DATA);
    assert_non_null(strstr(error_text(), "none of 1 rows could be kept as shp; is it the right format? The first: "));
    import_report_free(&r);
}

static void test_overlap(void **state)
{
    Folder *f = *state;
    ImportReport r;
    const char *against[1] = {f->other};
    ImportOptions o = {.against = against, .n_against = 1};
    /* records of other kinds: what counts is the prompt */
    put_rows(f->other, "{'prompt':'p','completion':'x'}\n{'prompt':'q','response':'x','is_safe':true}\n"
                       "{'messages':[{'role':'user','content':'r'},{'role':'assistant','content':'x'}]}\n");
    put_rows(f->in, "{'prompt':'p','chosen':'a','rejected':'b'}\n{'prompt':' q','chosen':'a','rejected':'b'}\n"
                    "{'prompt':'r','chosen':'a','rejected':'b'}\n{'prompt':'s','chosen':'a','rejected':'b'}\n");
    assert_int_equal(run(f, "ours", o, &r), 0);
    assert_int_equal(r.n_kept, 1);
    assert_int_equal(r.dropped[DROP_OVERLAP], 3);
    assert_report_has(&r, "  prompt stands in against             3   75.0 %\n");
    import_report_free(&r);
    o.on_overlap = OVERLAP_KEEP;
    assert_int_equal(run(f, "ours", o, &r), 0);
    assert_int_equal(r.n_kept, 4);
    assert_int_equal(r.n_overlap, 3);
    assert_report_has(&r, "  kept, stand in against               3   75.0 %\n");
    import_report_free(&r);
    o.on_overlap = OVERLAP_ERROR;
    assert_int_equal(run(f, "ours", o, &r), ERR_DATA);
    assert_non_null(strstr(error_text(), "in.jsonl:1: its prompt also stands in a file of against"));
    import_report_free(&r);
    put_rows(f->other, "{'prompt':'p'}\n{'prompt':5}\n");
    assert_int_equal(run(f, "ours", o, &r), ERR_DATA);
    assert_non_null(strstr(error_text(), "other.jsonl:2:11: prompt: found an integer"));
    import_report_free(&r);
}

/* Lengths 1..100 of the answers: quantiles by their definition, in both forms of the report. */
static void test_report(void **state)
{
    Folder *f = *state;
    ImportReport r;
    Str rows = {0}, text = {0};
    for (int i = 100; i >= 1; i--)
        str_addf(&rows, "{\"prompt\":\"pp\",\"response\":\"%0*d\",\"is_safe\":%s}\n", i, 0,
                 i % 4 ? "false" : "true");
    put(f->in, rows.s);
    str_free(&rows);
    assert_int_equal(run(f, "ours", (ImportOptions){0}, &r), 0);
    assert_report_has(&r, "  answer                             50.5        50        90        99       100\n");
    assert_report_has(&r, "  prompt and answer                  52.5        52        92       101       102\n");
    assert_report_has(&r, "  safe                                25   25.0 %  ##########\n");
    import_report_json(&r, &text);
    Json *j;
    assert_int_equal(json_parse(&j, text.s, text.n, "report", 1), 0);
    assert_string_equal(json_str(json_get(j, "kind")), "labelled");
    assert_int_equal(json_int(json_get(j, "kept"), -1), 100);
    assert_int_equal(json_int(json_get(json_get(j, "label"), "unsafe"), -1), 75);
    assert_int_equal(json_int(json_get(json_get(j, "dropped"), "duplicate"), -1), 0);
    assert_int_equal(json_int(json_get(json_get(json_get(j, "chars"), "answer"), "p90"), -1), 90);
    assert_true(json_num(json_get(json_get(json_get(j, "chars"), "whole"), "mean"), 0) == 52.5);
    assert_null(json_get(j, "tokens"));
    json_free(j);
    str_free(&text);
    import_report_free(&r);

    /* in tokens: every character is one for this tokenizer, but words it knows are one as well */
    ImportOptions o = {0};
    assert_int_equal(tokenizer_open(&o.tokenizer, "tests/golden/text/words"), 0);
    put_rows(f->in, "{'prompt':'hello there','response':'hello','is_safe':true}\n");
    assert_int_equal(run(f, "ours", o, &r), 0);
    IdList ids = {0};
    assert_int_equal(tokenizer_encode(o.tokenizer, "hello there", 11, true, &ids), 0);
    assert_int_equal(r.tokens[LENGTH_PROMPT].at[0], ids.n);
    assert_int_equal(r.chars[LENGTH_PROMPT].at[0], 11);
    assert_true(ids.n < 11);
    assert_report_has(&r, "length in tokens, no template ");
    id_list_free(&ids);
    import_report_free(&r);
    tokenizer_close(o.tokenizer);
}

/* ---- public files. Expected numbers: tests/golden/count_data.py, which shares nothing with us. */

static void need_file(const char *path)
{
    if (!file_exists(path))
        skip();
}

static int64_t sum_of(const ImportLengths *l)
{
    int64_t sum = 0;
    for (int64_t i = 0; i < l->n; i++)
        sum += l->at[i];
    return sum;
}

static void check_hh(Folder *f, const char *path, const int64_t expected[8])
{
    ImportReport r;
    RecordSet train = {0}, held = {0};
    need_file(path);
    const ImportOptions o = {.held_out = f->held, .held_out_every = 10};
    assert_int_equal(import_run(importer_find("hh-rlhf"), path, f->out, &o, &r), 0);
    const int64_t found[8] = {r.n_read,
                              r.n_kept,
                              r.dropped[DROP_IDENTICAL],
                              r.dropped[DROP_EMPTY],
                              sum_of(&r.chars[LENGTH_PROMPT]),
                              sum_of(&r.chars[LENGTH_ANSWER]),
                              sum_of(&r.chars[LENGTH_REJECTED]),
                              r.n_turns};
    for (int i = 0; i < 8; i++)
        if (found[i] != expected[i])
            fail_msg("%s: number %d is %lld, expected %lld", path, i, (long long)found[i],
                     (long long)expected[i]);
    assert_int_equal(r.n_read, r.n_kept + r.dropped[DROP_IDENTICAL] + r.dropped[DROP_EMPTY]);

    /* One tenth of the prompts, sd of the count sqrt(2348 * 0.1 * 0.9) = 14.5: five of them around
     * 235. And the two sides share no prompt. */
    assert_true(r.n_held_out > 160 && r.n_held_out < 310);
    assert_int_equal(record_set_read(&train, f->out, RECORD_PAIR, BAD_ROW_ERROR), 0);
    assert_int_equal(record_set_read(&held, f->held, RECORD_PAIR, BAD_ROW_ERROR), 0);
    assert_int_equal(train.n + held.n, r.n_kept);
    assert_int_equal(held.n, r.n_held_out);
    assert_int_equal(record_check_overlap(&train, "train", &held, "held out"), 0);
    record_set_free(&train);
    record_set_free(&held);
    import_report_free(&r);
}

static void test_hh_helpful(void **state)
{
    static const int64_t n[8] = {2354, 2348, 2, 4, 1147434, 577004, 436412, 5807};
    check_hh(*state, "../shared/data/hh_rlhf/helpful-base.test.jsonl.gz", n);
}

static void test_hh_harmless(void **state)
{
    static const int64_t n[8] = {2312, 2308, 0, 4, 998315, 386280, 485652, 5751};
    check_hh(*state, "../shared/data/hh_rlhf/harmless-base.test.jsonl.gz", n);
}

typedef struct {
    const char *file;
    bool against; /* the test file, as it was imported last */
    int64_t n[11]; /* read, kept, empty, duplicate, overlap, safe, unsafe, prompts, contradict, characters */
} DiaSafety;

static void check_diasafety(Folder *f, const DiaSafety *d)
{
    ImportReport r;
    char path[96];
    const char *against[1] = {f->other};
    snprintf(path, sizeof path, "../shared/data/diasafety/%s.json", d->file);
    const ImportOptions o = {.against = against, .n_against = d->against, .tagged = true};
    const char *out = strcmp(d->file, "test") ? f->out : f->other;
    assert_int_equal(import_run(importer_find("diasafety"), path, out, &o, &r), 0);
    const int64_t found[11] = {r.n_read,
                               r.n_kept,
                               r.dropped[DROP_EMPTY],
                               r.dropped[DROP_DUPLICATE],
                               r.dropped[DROP_OVERLAP],
                               r.n_safe,
                               r.n_unsafe,
                               r.n_prompts,
                               r.n_contradict,
                               sum_of(&r.chars[LENGTH_PROMPT]),
                               sum_of(&r.chars[LENGTH_ANSWER])};
    for (int i = 0; i < 11; i++)
        if (found[i] != d->n[i])
            fail_msg("%s: number %d is %lld, expected %lld", path, i, (long long)found[i],
                     (long long)d->n[i]);
    import_report_free(&r);
}

static void test_diasafety(void **state)
{
    static const DiaSafety files[] = {
        {"test", false, {1095, 1094, 1, 0, 0, 593, 501, 1045, 0, 116204, 84182}},
        {"val", false, {1097, 1097, 0, 0, 0, 595, 502, 1029, 0, 116627, 85218}},
        {"train", false, {9017, 9014, 2, 1, 0, 4836, 4178, 6509, 1, 970251, 706736}},
        {"train", true, {9017, 8076, 2, 1, 938, 4157, 3919, 6093, 1, 854086, 628512}},
    };
    need_file("../shared/data/diasafety/train.json");
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        check_diasafety(*state, &files[i]);
}

static void test_other_files(void **state)
{
    Folder *f = *state;
    ImportReport r;
    RecordSet s = {0};
    need_file("../shared/data/README.md");
    const ImportOptions skip_bad = {.on_bad = BAD_ROW_SKIP}, strict = {0};
    assert_int_equal(import_run(importer_find("tulu-human-pref"),
                                "../shared/data/tulu_human_pref/tulu_human_pref.jsonl", f->out,
                                &skip_bad, &r),
                     0);
    assert_int_equal(r.n_read, 1150);
    assert_int_equal(r.dropped[DROP_TIE], 376);
    /* 774 rated rows, counted as above: 63 repeat another in words and answers, 1 has equal answers
     */
    assert_int_equal(r.dropped[DROP_DUPLICATE], 63);
    assert_int_equal(r.dropped[DROP_IDENTICAL], 1);
    assert_int_equal(r.strength[STRENGTH_BETTER], 325);
    assert_int_equal(r.strength[STRENGTH_SLIGHT], 385);
    import_report_free(&r);

    assert_int_equal(import_run(importer_find("alpaca"), "../shared/data/sft/alpaca_en_demo.json",
                                f->out, &strict, &r),
                     0);
    assert_int_equal(r.n_read, 999);
    import_report_free(&r);
    assert_int_equal(
        record_set_read(&s, "../shared/data/sft/dpo_en_demo.json", RECORD_PAIR, BAD_ROW_SKIP), 0);
    assert_int_equal(s.n + s.n_bad, 300);
    assert_true(s.n > 280);
    record_set_free(&s);
    assert_int_equal(
        record_set_read(&s, "../shared/data/sft/v1_sft_demo.jsonl", RECORD_SFT, BAD_ROW_SKIP), 0);
    assert_int_equal(s.n + s.n_bad, 500);
    record_set_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_hh_rows, setup, teardown),
        cmocka_unit_test_setup_teardown(test_ours, setup, teardown),
        cmocka_unit_test_setup_teardown(test_labelled_sets, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pku, setup, teardown),
        cmocka_unit_test_setup_teardown(test_helpsteer, setup, teardown),
        cmocka_unit_test_setup_teardown(test_shp, setup, teardown),
        cmocka_unit_test_setup_teardown(test_webgpt, setup, teardown),
        cmocka_unit_test_setup_teardown(test_summarize, setup, teardown),
        cmocka_unit_test_setup_teardown(test_ultrafeedback, setup, teardown),
        cmocka_unit_test_setup_teardown(test_other_sets, setup, teardown),
        cmocka_unit_test_setup_teardown(test_malformed_rows, setup, teardown),
        cmocka_unit_test_setup_teardown(test_options, setup, teardown),
        cmocka_unit_test_setup_teardown(test_overlap, setup, teardown),
        cmocka_unit_test_setup_teardown(test_report, setup, teardown),
        cmocka_unit_test_setup_teardown(test_hh_helpful, setup, teardown),
        cmocka_unit_test_setup_teardown(test_hh_harmless, setup, teardown),
        cmocka_unit_test_setup_teardown(test_diasafety, setup, teardown),
        cmocka_unit_test_setup_teardown(test_other_files, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
