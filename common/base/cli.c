/* cli.c - one command line for all programs: everything ends up as config files and sets.
 *
 * A program's own option is a --set under another name, and messages call it by the name that was
 * typed. --help and --version touch nothing, so they work anywhere. Tested by
 * tests/unit/test_cli.c. */
#include "common/base/cli.h"

#include "common/base/error.h"
#include "common/base/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    const char **at;
    int n, cap;
} Words;

typedef struct {
    const CliSpec *spec;
    int argc;
    char **argv;
    int i; /* the argument being looked at */
    Words files, sets, set_names, args;
    char **made; /* texts made here */
    int n_made, cap_made;
    bool help, version, print_config;
} Parse;

static void words_add(Words *w, const char *word)
{
    int i = VEC_GROW(w->at, w->n, w->cap);
    w->at[i] = word;
}

static void parse_free(Parse *p)
{
    if (!p)
        return;
    for (int i = 0; i < p->n_made; i++)
        free(p->made[i]);
    free(p->made);
    free(p->files.at);
    free(p->sets.at);
    free(p->set_names.at);
    free(p->args.at);
    free(p);
}

static const char *keep(Parse *p, char *text)
{
    int i = VEC_GROW(p->made, p->n_made, p->cap_made);
    p->made[i] = text;
    return text;
}

static void add_set(Parse *p, const char *set, const char *name)
{
    words_add(&p->sets, set);
    words_add(&p->set_names, name); /* NULL: "--set argument N" */
}

/* ---- options ---- */

static const struct {
    const char *name, *placeholder, *help;
} common_options[] = {
    {"-c, --config", "FILE", "a YAML file; may be repeated, later values win"},
    {"--set", "KEY=VALUE", "sets one key; wins over files; KEY=VALUE alone does the same"},
    {"--resume", "auto|DIR", "go on from the newest checkpoint of out_dir, or from that in DIR"},
    {"--dry-run", NULL, "check everything, print the plan and the memory it takes, stop"},
    {"--plan", "FILE", "the same, and write what a run would take to FILE, for 'rlhf plan'"},
    {"--print-config", NULL, "print every key with its value, as YAML, and stop"},
    {"-h, --help", NULL, "this text"},
    {"--version", NULL, "the version"},
};

static const char *const common_names[] = {"--config",       "--set",  "--resume", "--dry-run", "--plan",
                                           "--print-config", "--help", "--version"};

/* --plan is an option of those that can plan. */
static bool has_common(const CliSpec *spec, const char *name)
{
    return spec->plans || strcmp(name, "--plan") != 0;
}

static const CliOption *find_option(const CliSpec *spec, const char *name, size_t n)
{
    for (const CliOption *o = spec->options; o && o->name; o++) {
        if (strlen(o->name) == n && memcmp(o->name, name, n) == 0)
            return o;
    }
    return NULL;
}

/* Other tools take every key as an option: --learning-rate 1e-5. */
static const char *nearest_key(const CliSpec *spec, const char *option)
{
    TextNearest near;
    char *word = xstrdup(option + strspn(option, "-"));
    for (char *s = word; *s; s++)
        *s = *s == '-' ? '_' : *s;
    text_nearest_init(&near, word);
    for (const CfgField *f = spec->fields; f && f->key; f++)
        text_nearest_try(&near, f->key);
    free(word);
    return near.found;
}

static int fail_unknown(const Parse *p, const char *arg, size_t n)
{
    TextNearest near;
    char *name = xstrndup(arg, n);
    text_nearest_init(&near, name);
    for (size_t i = 0; i < sizeof common_names / sizeof *common_names; i++)
        if (has_common(p->spec, common_names[i]))
            text_nearest_try(&near, common_names[i]);
    for (const CliOption *o = p->spec->options; o && o->name; o++)
        text_nearest_try(&near, o->name);
    const char *key = near.found ? NULL : nearest_key(p->spec, name);
    if (near.found)
        error_set(ERR_USAGE, "%s: unknown option (did you mean '%s'?)", name, near.found);
    else if (key)
        error_set(ERR_USAGE, "%s: unknown option (did you mean '%s=VALUE'?)", name, key);
    else
        error_set(ERR_USAGE, "%s: unknown option; %s --help lists all", name, p->spec->program);
    free(name);
    return ERR_USAGE;
}

/* The value of the option at p->i: behind '=', or the next argument. */
static int take_value(Parse *p, size_t name_bytes, const char *what, const char **value)
{
    const char *arg = p->argv[p->i];
    if (arg[name_bytes] == '=') {
        *value = arg + name_bytes + 1;
        return 0;
    }
    if (p->i + 1 >= p->argc)
        return error_set(ERR_USAGE, "%s: expected %s behind it, found the end of the line", arg,
                         what);
    *value = p->argv[++p->i];
    return 0;
}

static int refuse_value(const char *arg, size_t name_bytes)
{
    if (arg[name_bytes] != '=')
        return 0;
    return error_set(ERR_USAGE, "%s: %.*s takes no value", arg, (int)name_bytes, arg);
}

static int parse_own_option(Parse *p, const CliOption *o, size_t n)
{
    const char *value = "true";
    const char *arg = p->argv[p->i];
    int rc = o->value ? take_value(p, n, o->value, &value) : refuse_value(arg, n);
    if (rc < 0)
        return rc;
    add_set(p, keep(p, xasprintf("%s=%s", o->key, value)), o->name);
    return 0;
}

static int parse_option(Parse *p, Cli *cli)
{
    const char *arg = p->argv[p->i], *value;
    size_t n = strcspn(arg, "=");
    int rc = 0;
#define IS(text) (n == strlen(text) && memcmp(arg, text, n) == 0)
    const CliOption *own = find_option(p->spec, arg, n);
    if (own)
        return parse_own_option(p, own, n);
    if (IS("-c") || IS("--config")) {
        TRY(take_value(p, n, "FILE", &value));
        words_add(&p->files, value);
    } else if (IS("--set")) {
        TRY(take_value(p, n, "KEY=VALUE", &value));
        add_set(p, value, NULL);
    } else if (IS("--resume")) {
        TRY(take_value(p, n, "auto or DIR", &cli->resume));
    } else if (IS("--dry-run")) {
        TRY(refuse_value(arg, n));
        cli->dry_run = true;
    } else if (p->spec->plans && IS("--plan")) {
        TRY(take_value(p, n, "FILE", &cli->plan));
        cli->dry_run = true;
    } else if (IS("--print-config")) {
        TRY(refuse_value(arg, n));
        p->print_config = true;
    } else if (IS("-h") || IS("--help")) {
        p->help = true;
    } else if (IS("--version")) {
        p->version = true;
    } else {
        return fail_unknown(p, arg, n);
    }
#undef IS
fail:
    return rc;
}

/* KEY=VALUE: a dotted name before the '='. A path with '=' in it does not look so. */
static bool is_bare_set(const char *arg)
{
    size_t n = strspn(arg, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.");
    return n > 0 && arg[n] == '=';
}

static int parse_words(Parse *p, Cli *cli)
{
    bool options = true;
    for (p->i = 1; p->i < p->argc; p->i++) {
        const char *arg = p->argv[p->i];
        int rc = 0;
        if (options && strcmp(arg, "--") == 0)
            options = false;
        else if (options && arg[0] == '-' && arg[1])
            rc = parse_option(p, cli);
        else if (options && is_bare_set(arg))
            add_set(p, arg, NULL);
        else
            words_add(&p->args, arg);
        if (rc < 0)
            return rc;
        if (p->help || p->version)
            return 0;
    }
    if (p->args.n <= p->spec->max_args)
        return 0;
    const char *extra = p->args.at[p->spec->max_args];
    bool yaml = strstr(extra, ".yaml") || strstr(extra, ".yml");
    return error_set(ERR_USAGE, "%s: unexpected argument; %s takes at most %d%s", extra,
                     p->spec->program, p->spec->max_args,
                     yaml ? " (a config file needs -c before it)" : "");
}

/* ---- --help ---- */

static void help_option(Str *out, const char *name, const char *placeholder, const char *text)
{
    char *left = xasprintf("%s%s%s", name, placeholder ? " " : "", placeholder ? placeholder : "");
    str_addf(out, "  %-24s %s\n", left, text ? text : "");
    free(left);
}

static const char *const exit_codes =
    "Exit codes:\n"
    "  0   done\n"
    "  2   wrong command line\n"
    "  10  an input for another program was written; run again when its answer is there\n"
    "  65  bad data (a record, model file or tokenizer)\n"
    "  66  an input is missing\n"
    "  69  the device asked for is not available\n"
    "  70  internal error\n"
    "  73  an output cannot be written\n"
    "  74  a read failed\n"
    "  75  stopped by a signal after a checkpoint; run again with --resume auto\n"
    "  76  training diverged\n"
    "  78  bad configuration\n";

static void print_help(const CliSpec *spec)
{
    Str b = {0};
    str_addf(&b, "%s - %s\n\nUsage: %s %s\n", spec->program, spec->summary, spec->program,
             spec->usage ? spec->usage : "-c FILE ... [KEY=VALUE ...] [OPTION ...]");
    if (spec->description)
        str_addf(&b, "\n%s\n", spec->description);
    str_add(&b, "\nOptions:\n");
    for (const CliOption *o = spec->options; o && o->name; o++)
        help_option(&b, o->name, o->value, o->help);
    for (size_t i = 0; i < sizeof common_options / sizeof *common_options; i++)
        if (has_common(spec, common_options[i].name))
            help_option(&b, common_options[i].name, common_options[i].placeholder,
                        common_options[i].help);
    if (spec->fields && spec->fields->key) {
        str_add(&b, "\nConfig keys (in a FILE, or as KEY=VALUE):\n");
        config_help(spec->fields, &b);
    }
    if (spec->examples)
        str_addf(&b, "\nExamples:\n%s\n", spec->examples);
    str_addf(&b, "\n%s", exit_codes);
    fputs(b.s, stdout);
    str_free(&b);
}

/* ---- the whole ---- */

static const CfgField no_fields[] = {{0}};

static int load_config(Cli *cli, const Parse *p)
{
    const CliSpec *spec = p->spec;
    ConfigSources from = {.files = p->files.at,
                          .n_files = p->files.n,
                          .sets = p->sets.at,
                          .n_sets = p->sets.n,
                          .set_names = p->set_names.at};
    return config_load(&cli->config, spec->fields ? spec->fields : no_fields, spec->config_bytes,
                       &from);
}

int cli_parse(Cli *cli, const CliSpec *spec, int argc, char **argv)
{
    int rc;
    *cli = (Cli){0};
    Parse *p = cli->owned = xcalloc(1, sizeof *p);
    p->spec = spec;
    p->argc = argc;
    p->argv = argv;
    TRY(parse_words(p, cli));
    if (p->help) {
        print_help(spec);
        return 1;
    }
    if (p->version) {
        printf("%s %s\n", spec->program, rlhf_version);
        return 1;
    }
    TRY(load_config(cli, p));
    cli->args = p->args.at;
    cli->n_args = p->args.n;
    if (p->print_config) {
        Str text = {0};
        config_print(cli->config, &text, true);
        fputs(str_get(&text), stdout);
        str_free(&text);
        return 1;
    }
    return 0;
fail:
    cli_free(cli);
    return rc;
}

void cli_free(Cli *cli)
{
    config_free(cli->config);
    parse_free(cli->owned);
    *cli = (Cli){0};
}

int cli_fail(const char *program, int rc)
{
    const char *text = error_text();
    fflush(stdout);
    do {
        size_t n = strcspn(text, "\n");
        fprintf(stderr, "%s: error: %.*s\n", program, (int)n, text);
        text += n;
    } while (*text++);
    return rc < 0 ? -rc : rc;
}
