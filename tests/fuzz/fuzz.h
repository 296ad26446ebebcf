/* fuzz.h - what a fuzz target is: the function that libFuzzer calls, and seeds for our own driver.
 *
 * driver.c needs no other compiler or library: input i of a seed is a pure function of both, made
 * of the target's seeds by changes of bytes, cuts, repeats, splices and words of the target. A
 * target CHECKs what must hold of every input; the sanitizers of the build watch the rest, and the
 * driver that no file stays open or mapped. */
#ifndef RLHF_TESTS_FUZZ_H
#define RLHF_TESTS_FUZZ_H

#include "common/base/mem.h"

#include <stdbool.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

/* Seed k of the target appended to `out`; false behind the last. */
bool fuzz_seed(int k, Str *out);
extern const char *const fuzz_words[]; /* ends with NULL */
/* The usual fuzz_seed: k of n texts. */
bool fuzz_seed_text(const char *const *seeds, size_t n, int k, Str *out);

/* Values of a field of a row, among the words of targets that read rows. */
#define FUZZ_ROW_VALUES                                                                            \
    "\"\"", "\" \"", "\"q\"", "\"a\"", "7", "false", "[\"a\"]",                                    \
        "{\"role\": \"user\", \"content\": \"\"}",                                                 \
        "[{\"role\": \"assistant\", \"content\": \"b\"}]", "null", "true", "[]", "{}", "[", "]",   \
        "{", "}", ",", ":", "\"", "\\u0000", "\n", "\\n\\nHuman:", "\\n\\nAssistant:"

/* ---- inputs of several files (file.c) */

#define FUZZ_BORDER "\n----\n"

typedef struct {
    const char *s; /* not terminated */
    size_t n;
} FuzzPart;

/* The parts of an input between borders, at most `max` of them, the last one with the borders in it. */
int fuzz_parts(FuzzPart *part, int max, const void *data, size_t n);

/* The bytes as a file that can be opened by name; the same name and file each time. */
const char *fuzz_file(const void *data, size_t n);
/* A folder of this run, in memory where the system has such; removed at its end. */
const char *fuzz_folder(void);
void fuzz_folder_remove(void);
/* Path of a file there; valid until the fourth next call. */
const char *fuzz_path(const char *name);
void fuzz_put(const char *name, const void *data, size_t n); /* folders of the name are made */
void fuzz_put_nothing(const char *name);                     /* removes it */

/* ---- what holds of every input */

/* Appends all that came out of an input to `out`: what was read, or the message. */
typedef void (*FuzzRun)(const uint8_t *data, size_t n, Str *out);
/* Runs it twice: the same both times. */
void fuzz_twice(FuzzRun run, const uint8_t *data, size_t n);
/* A refusal has one of the codes of the world's faults and a sentence that begins with the place: `file`, or a file in it. */
void fuzz_refused(int rc, const char *file, Str *out);

/* Descriptors and mappings of inputs' files: the same number after every input. */
int fuzz_lowest_free_descriptor(void);
int fuzz_mapped_files(void);

#endif
