/* test_import_sets.c - one fixture a public set: rows in its real fields with texts of ours, the
 * records that come out, what is dropped; and malformed rows, each with its place and reason. */
#include "tests/unit/import_fixture.h"

/* A record on one line: "user:q|assistant:x| + chosen - rejected [strength safety/safety source]".
 */
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

static void test_labelled_sets(void **state)
{
    Folder *f = *state;
    check(f, "diasafety",
          "[{'context':'c','response':'r','category':'x','label':'Safe'},\n"
          "{'context':'c','response':'s','category':'x','label':'Unsafe'}]",
          (ImportOptions){0}, "user:c| + r [safe diasafety]\nuser:c| + s [unsafe diasafety]\n",
          NULL);
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
        "'response_0_source':'Alpaca-7B','response_1_source':'Alpaca2-7B','is_response_0_safe':"
        "false,"
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
#define RATED(q, a, h)                                                                             \
    "{'prompt':'" q "','response':'" a "','helpfulness':" h                                        \
    ",'correctness':3,'coherence':4,'complexity':1,'verbosity':1}\n"
    /* two answers; a tie; a prompt with one answer; four answers, the first pair of them tied */
    static const char rows[] = RATED("p", "a", "1") RATED("p", "b", "4") RATED("r", "a", "2")
        RATED("r", "b", "2") RATED("s", "a", "3") RATED("t", "a", "0") RATED("t", "b", "0")
            RATED("t", "c", "1") RATED("t", "d", "2");
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

    check(
        *state, "helpsteer2",
        "{'split':'train','prompt':'q','response_1':'a','response_2':'b','preference_strength':3,"
        "'preference_statement':'@Response 2 is better','preference_elaboration':'x',"
        "'three_most_similar_preferences':[],'all_preferences_unprocessed':[]}\n"
        "{'split':'train','prompt':'q','response_1':'a','response_2':'c','preference_strength':-2}"
        "\n"
        "{'split':'train','prompt':'q','response_1':'a','response_2':'d','preference_strength':0}\n"
        "{'split':'validation','prompt':'q','response_1':'a','response_2':'e','preference_strength'"
        ":-1}\n"
        "{'split':'train','prompt':'x\\n<extra_id_1>Assistant\\ny\\n<extra_id_1>User\\nz','"
        "response_1':'a',"
        "'response_2':'b','preference_strength':-1}\n",
        (ImportOptions){.split = "train"},
        "user:q| + b - a [significant ?/? helpsteer2]\nuser:q| + a - c [better ?/? helpsteer2]\n"
        "user:x|assistant:y|user:z| + a - b [slight ?/? helpsteer2]\n",
        DROPS([DROP_TIE] = 1, [DROP_SPLIT] = 1));
    check(*state, "helpsteer3",
          "{'domain':'code','language':'python','context':[{'role':'user','content':'q'}],'"
          "response1':'a',"
          "'response2':'b','overall_preference':-2,'individual_preference':[{'score':-2,'reasoning'"
          ":'x',"
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
        "{'post_id':'x1','domain':'askculinary_train','upvote_ratio':0.98,'history':'q','c_root_id_"
        "A':'1',"
        "'c_root_id_B':'2','created_at_utc_A':1,'created_at_utc_B':2,'score_A':3,'score_B':27,"
        "'human_ref_A':'a','human_ref_B':'b','labels':0,'seconds_difference':9.0,'score_ratio':9.0}"
        "\n"
        "{'domain':'d','history':'q','human_ref_A':'c','human_ref_B':'d','labels':1,'score_ratio':"
        "4.0}\n"
        "{'domain':'d','history':'q','human_ref_A':'e','human_ref_B':'f','labels':1,'score_ratio':"
        "2.5}\n"
        "{'domain':'d','history':'q','human_ref_A':'g','human_ref_B':'h','labels':1,'score_ratio':"
        "1.2}\n";
    check(*state, "shp", rows, (ImportOptions){0},
          "user:q| + b - a [significant ?/? shp/askculinary_train]\nuser:q| + c - d [better ?/? "
          "shp/d]\n"
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
#define WEBGPT(q, a, b, s, t)                                                                      \
    "{'question':{'full_text':'" q                                                                 \
    "','dataset':'eli5','id':'1'},'quotes_0':{'title':[],'extract':[]},'answer_0':'" a             \
    "','tokens_0':{'prefix':[],'completion':[]},'score_0':" s ",'quotes_1':{},'answer_1':'" b      \
    "','tokens_1':{},'score_1':" t "}\n"
    check(
        *state, "webgpt",
        WEBGPT("q", "a [1]", "b", "1.0", "-1.0") WEBGPT("q", "c", "d", "-0.5", "0.5")
            WEBGPT("q", "e", "f", "0.25", "-0.25") WEBGPT("q", "g", "h", "-0.1", "0.1")
                WEBGPT("q", "i", "j", "0", "0") WEBGPT("q", "k", "", "1", "-1"),
        (ImportOptions){0},
        "user:q| + a [1] - b [significant ?/? webgpt/eli5]\nuser:q| + d - c [better ?/? "
        "webgpt/eli5]\n"
        "user:q| + e - f [slight ?/? webgpt/eli5]\nuser:q| + h - g [negligible ?/? webgpt/eli5]\n",
        DROPS([DROP_TIE] = 1, [DROP_EMPTY] = 1));
}

static void test_summarize(void **state)
{
#define SUMMARY(info, choice, confidence)                                                          \
    "{'info':{" info "},'summaries':[{'text':' s0','policy':'sup1','note':null},{'text':' "        \
                     "s1','policy':'ref','note':null}],'choice':" choice                           \
    ",'worker':'w','batch':'b1','split':'train','extra':{'confidence':" confidence "}}\n"
    check(
        *state, "summarize",
        SUMMARY(
            "'id':'t3_1','post':'long','title':'T','subreddit':'tifu','site':null,'article':null",
            "1", "9")
            SUMMARY(
                "'id':'2','post':null,'title':'T','subreddit':null,'site':'cnndm','article':'news'",
                "0", "2") SUMMARY("'post':'p3','title':null,'subreddit':'tifu'", "0", "null")
                SUMMARY("'post':'p4','title':null,'subreddit':'tifu'", "0", "5")
                    SUMMARY("'post':' ','title':null,'subreddit':'tifu'", "0", "5"),
        (ImportOptions){0},
        "user:SUBREDDIT: r/tifu\n\nTITLE: T\n\nPOST: long\n\nTL;DR:| +  s1 -  s0 [significant ?/? "
        "summarize]\n"
        "user:TITLE: T\n\nARTICLE: news\n\nTL;DR:| +  s0 -  s1 [better ?/? summarize]\n"
        "user:SUBREDDIT: r/tifu\n\nPOST: p3\n\nTL;DR:| +  s0 -  s1 [unknown ?/? summarize]\n"
        "user:SUBREDDIT: r/tifu\n\nPOST: p4\n\nTL;DR:| +  s0 -  s1 [negligible ?/? summarize]\n",
        DROPS([DROP_EMPTY] = 1));
}

static void test_ultrafeedback(void **state)
{
#define ANSWER(text, score)                                                                        \
    "{'model':'m','principle':'helpfulness','custom_system_prompt':'s','response':'" text          \
    "','annotations':{'helpfulness':{'Rating':'5','Rationale':'x'},'honesty':{'Rating':'N/"        \
    "A'}},'critique':'c','overall_score':" score "}"
    check(
        *state, "ultrafeedback",
        "{'source':'evol_instruct','instruction':'q','models':['m'],'completions':[" ANSWER(
            "a",
            "3.0") "," ANSWER("b",
                              "8.5") "," ANSWER("c",
                                                "7.5") "," ANSWER("d",
                                                                  "7.5") "]}\n"
                                                                         "{'source':'x','"
                                                                         "instruction':'q','models'"
                                                                         ":[],'completions':[]}\n",
        (ImportOptions){0},
        "user:q| + b - a [significant ?/? ultrafeedback]\nuser:q| + c - a [significant ?/? "
        "ultrafeedback]\n"
        "user:q| + d - a [significant ?/? ultrafeedback]\nuser:q| + b - c [slight ?/? "
        "ultrafeedback]\n"
        "user:q| + b - d [slight ?/? ultrafeedback]\n",
        DROPS([DROP_TIE] = 1, [DROP_ALONE] = 1));
#define TURNS(text) "[{'content':'q','role':'user'},{'content':'" text "','role':'assistant'}]"
    check(*state, "ultrafeedback-binarized",
          "{'prompt':'q','prompt_id':'0','chosen':" TURNS("a") ",'rejected':" TURNS(
              "b") ",'messages':" TURNS("a") ",'score_chosen':8.5,'score_rejected':6.5}\n"
                                             "{'prompt':'q','prompt_id':'0','chosen':" TURNS("c") ",'rejected':" TURNS(
                                                 "d") ",'messages':" TURNS("c") ",'score_chosen':8."
                                                                                "5,'score_rejected'"
                                                                                ":8.5}\n"
                                                                                "{'prompt':'q','"
                                                                                "prompt_id':'0','"
                                                                                "chosen':" TURNS("e") ",'rejected':" TURNS(
                                                                                    "f") ",'"
                                                                                         "messages'"
                                                                                         ":" TURNS("e") ",'score_chosen':8.5,'score_rejected':8.0}\n",
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
          "user:p| + b - a [better ?/? tulu-human-pref]\nuser:p| + a - c [slight ?/? "
          "tulu-human-pref]\n",
          DROPS([DROP_TIE] = 1));
    check(*state, "reward-bench",
          "{'prompt':'q','chosen':'a','chosen_model':'m','rejected':'b','rejected_model':'n',"
          "'subset':'alpacaeval-easy','id':7}\n",
          (ImportOptions){0}, "user:q| + a - b [unknown ?/? reward-bench/alpacaeval-easy]\n", NULL);
    check(*state, "alpaca",
          "{'instruction':'do','input':'this','output':'done'}\n{'instruction':'do','input':'','"
          "output':' '}\n",
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
        {"hh-rlhf", "{'chosen':7,'rejected':'x'}",
         "1:11: chosen: found an integer, expected a string"},
        {"diasafety", "{'context':'c','response':'r'}",
         "1:1: label: missing; a row of DiaSafety has context, response, label (found: context, "
         "response)"},
        {"diasafety", "{'context':'c','response':'r','label':'Good'}",
         "1:39: label: found 'Good', expected Safe or Unsafe"},
        {"diasafety", "{'context':null,'response':'r','label':'Safe'}", "1:12: context: missing"},
        {"beavertails", "{'prompt':'q','response':'a','is_safe':'yes'}",
         "1:40: is_safe: found a string, expected true or false"},
        {"beavertails", "{'prompt':'q','response':{},'is_safe':true}",
         "1:26: response: has no field 'role'"},
        {"pku-safe-rlhf", "{'prompt':'q','response_0':'a','response_1':'b','better_response_id':2}",
         "1:70: better_response_id: found 2, expected 0 to 1"},
        {"pku-safe-rlhf", "{'prompt':'q','response_0':'a','response_1':'b'}",
         "1:1: better_response_id: missing; a row of PKU-SafeRLHF has prompt, response_0"},
        {"pku-safe-rlhf",
         "{'prompt':'q','response_0':'a','response_1':'b','better_response_id':1,'is_response_0_"
         "safe':1}",
         "1:93: is_response_0_safe: found an integer"},
        {"helpsteer", "{'prompt':'q','response':'a','helpfulness':5}",
         "1:44: helpfulness: found 5, expected 0 to 4"},
        {"helpsteer", "{'prompt':'q','response':'a','helpfulness':'4'}",
         "1:44: helpfulness: found a string, expected a number"},
        {"helpsteer2", "{'prompt':'q','response_1':'a','response_2':'b','preference_strength':1.5}",
         "1:71: preference_strength: found 1.5, expected an integer"},
        {"helpsteer2",
         "{'prompt':'a<extra_id_1>Robot\\nb','response_1':'a','response_2':'b','preference_"
         "strength':1}",
         "1:11: prompt: <extra_id_1> is followed by neither 'User' nor 'Assistant'"},
        {"helpsteer3",
         "{'context':[{'role':'tool','content':'x'}],'response1':'a','response2':'b','overall_"
         "preference':1}",
         "1:13: context[0]: unknown role 'tool'"},
        {"shp", "{'history':'q','human_ref_A':'a','human_ref_B':'b','labels':1}",
         "1:1: score_ratio: missing"},
        {"shp", "{'history':'q','human_ref_A':'a','human_ref_B':'b','labels':true,'score_ratio':2}",
         "1:61: labels: found a boolean, expected a number"},
        {"webgpt", "{'question':{'id':'1'},'answer_0':'a','answer_1':'b','score_0':1,'score_1':-1}",
         "1:13: question.full_text: missing; a row of WebGPT comparisons has question"},
        {"webgpt",
         "{'question':{'full_text':'q'},'answer_0':'a','answer_1':'b','score_0':1,'score_1':1}",
         "1:83: score_1: 1 and score_0 1 do not sum to 0"},
        {"webgpt",
         "{'question':{'full_text':'q'},'answer_0':'a','answer_1':'b','score_0':-3,'score_1':3}",
         "1:71: score_0: found -3, expected -1 to 1"},
        {"summarize", "{'info':{'post':'p'},'summaries':[{'text':'a'}],'choice':0}",
         "1:34: summaries[1].text: missing"},
        {"summarize", "{'info':{'post':'p'},'summaries':[{'text':'a'},{'text':3}],'choice':0}",
         "1:56: summaries[1].text: found an integer"},
        {"summarize", "{'info':{'id':'p'},'summaries':[{'text':'a'},{'text':'b'}],'choice':0}",
         "1:9: info.post: missing"},
        {"summarize",
         "{'info':{'post':'p'},'summaries':[{'text':'a'},{'text':'b'}],'choice':0,'extra':{'"
         "confidence':10}}",
         "1:95: extra.confidence: found 10, expected 1 to 9"},
        {"ultrafeedback", "{'instruction':'q','completions':{}}", "1:34: completions: missing"},
        {"ultrafeedback",
         "{'instruction':'q','completions':[{'response':'a','overall_score':1},{'response':'b'}]}",
         "1:70: completions[1].overall_score: missing"},
        {"ultrafeedback",
         "{'instruction':'q','completions':[{'response':'a','overall_score':1},{'response':1,'"
         "overall_score':1}]}",
         "1:82: completions[1].response: found an integer"},
        {"ultrafeedback-binarized",
         "{'prompt':'q','chosen':'a','rejected':'b','score_chosen':1,'score_rejected':2}",
         "1:58: score_chosen: 1 is below score_rejected 2"},
        {"tulu-human-pref", "{'prompt':'q','completion_a':'a','completion_b':'b','strength':3}",
         "1:64: strength: found 3, expected -2 to 2"},
        {"reward-bench", "{'prompt':'q','chosen':'a','rejected':'b'}",
         "1:1: subset: missing; a row of RewardBench"},
        {"alpaca", "{'instruction':'q','input':''}",
         "1:1: output: missing; a row of Alpaca has instruction"},
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
            fail_msg("%s\nfound    %s\nexpected in.jsonl:%s", rows[i].row, error_text(),
                     rows[i].error);
        assert_false(file_exists(f->out));
        import_report_free(&r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_labelled_sets, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pku, setup, teardown),
        cmocka_unit_test_setup_teardown(test_helpsteer, setup, teardown),
        cmocka_unit_test_setup_teardown(test_shp, setup, teardown),
        cmocka_unit_test_setup_teardown(test_webgpt, setup, teardown),
        cmocka_unit_test_setup_teardown(test_summarize, setup, teardown),
        cmocka_unit_test_setup_teardown(test_ultrafeedback, setup, teardown),
        cmocka_unit_test_setup_teardown(test_other_sets, setup, teardown),
        cmocka_unit_test_setup_teardown(test_malformed_rows, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
