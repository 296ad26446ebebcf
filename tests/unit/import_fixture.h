/* import_fixture.h - a folder and rows for the tests of the importers. */
#ifndef RLHF_TESTS_IMPORT_FIXTURE_H
#define RLHF_TESTS_IMPORT_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/data/import.h"

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

static inline void put(const char *path, const char *text)
{
    assert_int_equal(file_write_atomic(path, text, strlen(text)), 0);
}

/* The fixtures are written with ' for ". */
static inline void put_rows(const char *path, const char *rows)
{
    char *text = xstrdup(rows);
    for (char *c = text; *c; c++)
        *c = *c == '\'' ? '"' : *c;
    put(path, text);
    free(text);
}

static inline int run(Folder *f, const char *format, ImportOptions o, ImportReport *r)
{
    const Importer *imp = importer_find(format);
    assert_non_null(imp);
    return import_run(imp, f->in, f->out, &o, r);
}

#endif
