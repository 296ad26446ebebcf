/* fuzz_checkpoint.c - any manifest over any state: a checkpoint is loaded only with the bytes that were saved, and
 * one that is refused changes nothing. An input is the manifest, a border and the state. */
#include "tests/fuzz/fuzz.h"

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/log.h"
#include "common/train/checkpoint.h"

#include <stdlib.h>
#include <string.h>

enum { STEP = 7, BYTES = 24, FILLED = 0xA5 };

/* What a run has: two blobs of one size, a third one, and an empty one. */
typedef struct {
    unsigned char a[BYTES], b[BYTES], c[1];
    BlobList list;
} State;

static void state_init(State *s)
{
    memset(s, 0, sizeof *s);
    blob_add(&s->list, "policy.w", s->a, BYTES);
    blob_add(&s->list, "policy.m", s->b, BYTES);
    blob_add(&s->list, "cursor", s->c, sizeof s->c);
    blob_add(&s->list, "nothing", s->c, 0);
}

/* What was saved: byte i of blob k is 16 k + i. */
static void state_fill(State *s)
{
    for (int i = 0; i < BYTES; i++) {
        s->a[i] = (unsigned char)i;
        s->b[i] = (unsigned char)(16 + i);
    }
    s->c[0] = 32;
}

const char *const fuzz_words[] = {
    "\"format\": 1", "\"format\": 2", "\"step\": 7", "\"step\": 8", "7", "7.0", "24", "0", "1", "48", "-1", "49", "25",
    "9223372036854775807", "1e30", "\"policy.w\"", "\"policy.m\"", "\"cursor\"", "\"bytes\":", "\"name\":", "\"xxh3_128\":",
    "null", "[]", "{}", "[", "]", "{", "}", ",", ":", "\"", "\n", FUZZ_BORDER, NULL,
};

bool fuzz_seed(int k, Str *out)
{
    State s;
    char *manifest, *state;
    size_t n_manifest, n_state;
    if (k > 2)
        return false;
    state_init(&s);
    state_fill(&s);
    if (k == 1) { /* to be refused: another order, and fewer entries */
        const Blob first = s.list.at[0];
        s.list.at[0] = s.list.at[1];
        s.list.at[1] = first;
    } else if (k == 2) {
        s.list.n = 2;
    }
    CHECK(checkpoint_save(fuzz_path("saved"), STEP, &s.list, "seed: 1\n") == 0 &&
              file_read(fuzz_path("saved/checkpoints/step-7/manifest.json"), &manifest, &n_manifest) == 0 &&
              file_read(fuzz_path("saved/checkpoints/step-7/state.bin"), &state, &n_state) == 0,
          "%s", error_text());
    str_add_bytes(out, manifest, n_manifest);
    str_add(out, FUZZ_BORDER);
    str_add_bytes(out, state, n_state);
    free(manifest);
    free(state);
    blob_list_free(&s.list);
    return true;
}

static void run(const uint8_t *data, size_t n, Str *out)
{
    FuzzPart part[2] = {{"", 0}, {"", 0}};
    State s, want;
    int64_t found = -1;
    fuzz_parts(part, 2, data, n);
    fuzz_put("run/checkpoints/step-7/manifest.json", part[0].s, part[0].n);
    fuzz_put("run/checkpoints/step-7/state.bin", part[1].s, part[1].n);
    state_init(&s);
    state_init(&want);
    memset(s.a, FILLED, BYTES);
    memset(s.b, FILLED, BYTES);
    s.c[0] = FILLED;
    memcpy(want.a, s.a, BYTES);
    memcpy(want.b, s.b, BYTES);
    want.c[0] = s.c[0];
    const int rc = checkpoint_load(fuzz_path("run"), STEP, &s.list);
    if (rc < 0)
        fuzz_refused(rc, fuzz_path("run/checkpoints/step-7"), out);
    else
        state_fill(&want);
    CHECK(rc < 0 || part[1].n == 2 * BYTES + 1, "a state of %zu bytes", part[1].n);
    CHECK(!memcmp(s.a, want.a, BYTES) && !memcmp(s.b, want.b, BYTES) && s.c[0] == want.c[0],
          rc < 0 ? "a refused checkpoint changed something" : "loaded bytes that were not saved");
    const int rc_find = checkpoint_find(fuzz_path("run"), &found);
    CHECK(rc_find < 0 ? rc < 0 && rc_find == ERR_NOINPUT : found == STEP, "found %lld, %d", (long long)found, rc_find);
    str_addf(out, " found %lld\n", (long long)found);
    blob_list_free(&s.list);
    blob_list_free(&want.list);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static bool quiet;
    if (!quiet) { /* every broken checkpoint is named in a warning */
        setenv("RLHF_LOG", "error", 1);
        log_init(0);
        quiet = true;
    }
    fuzz_twice(run, data, n);
    return 0;
}
