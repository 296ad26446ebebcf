/* test_events.c - the TensorBoard file byte by byte, and that a resumed file is that of a whole run. */
#include "common/train/events.h"

#include "common/base/file.h"
#include "common/base/hash.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

enum { VERSION_BYTES = 12 + 24 + 4, WALL = 12 + 1 }; /* first record; where a record holds its wall time */

static char dir[64];

static int setup(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/test_events.XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    return dir_remove(dir);
}

static unsigned char *read_events(size_t *n)
{
    char *path = path_join(dir, "events.out.tfevents"), *data;
    assert_int_equal(file_read(path, &data, n), 0);
    free(path);
    return (unsigned char *)data;
}

/* Steps from..to with two metrics, in a file that goes on after `after`. */
static void run(int64_t after, int64_t from, int64_t to)
{
    Events e;
    assert_int_equal(events_open(&e, dir, after), 0);
    for (int64_t step = from; step <= to; step++) {
        Metrics m = {.name = {"loss", "objective/kl"}, .value = {(double)step, 0.5}, .n = 2};
        assert_int_equal(events_write(&e, step, &m), 0);
    }
    assert_int_equal(events_sync(&e), 0);
    events_close(&e);
    events_close(&e);
}

/* The masked CRC-32C that must stand after n bytes (TensorFlow's crc32c.h). */
static void assert_crc(const unsigned char *data, size_t n)
{
    uint32_t crc = hash_crc32c(data, n), stored;
    memcpy(&stored, data + n, 4);
    assert_int_equal(stored, (uint32_t)((crc >> 15 | crc << 17) + 0xa282ead8U));
}

static void records_by_hand(void **state)
{
    (void)state;
    size_t n;
    run(0, 300, 300);
    unsigned char *p = read_events(&n);
    /* what every event file of TensorFlow begins with: length 24 and its checksum; wall time (field 1);
     * field 3 of 13 bytes */
    assert_memory_equal(p, "\x18\0\0\0\0\0\0\0\xa3\x7f\x4b\x22\x09", 13);
    assert_memory_equal(p + WALL + 8, "\x1a\x0d" "brain.Event:2", 15);
    assert_crc(p, 8);
    assert_crc(p + 12, 24);
    double wall, now = (double)time(NULL);
    memcpy(&wall, p + WALL, 8);
    assert_true(fabs(now - wall) < 100);
    /* step 300 = 0b10_0101100; summary: values of 1 + 1 + 4 + 1 + 4 = 11 and of 1 + 1 + 12 + 1 + 4 = 19
     * bytes, each behind a tag and a length: 34; 300 = 0x43960000 and 0.5 = 0x3f000000 in f32 */
    const unsigned char *r = p + VERSION_BYTES;
    static const char want[] = "\x10\xac\x02" "\x2a\x22"
                               "\x0a\x0b" "\x0a\x04" "loss" "\x15\x00\x00\x96\x43"
                               "\x0a\x13" "\x0a\x0c" "objective/kl" "\x15\x00\x00\x00\x3f";
    size_t len = 9 + sizeof want - 1;
    assert_int_equal(n, VERSION_BYTES + 12 + len + 4);
    assert_int_equal(r[0], len);
    assert_crc(r, 8);
    assert_crc(r + 12, len);
    assert_memory_equal(r + WALL + 8, want, sizeof want - 1);
    free(p);
}

/* But for the wall times. */
static void assert_same(const unsigned char *a, size_t na, const unsigned char *b, size_t nb)
{
    assert_int_equal(na, nb);
    for (size_t at = 0; at < na; at += 12U + a[at] + 4) {
        assert_int_equal(a[at], b[at]);
        assert_memory_equal(a + at + WALL + 8, b + at + WALL + 8, a[at] - 9U);
    }
}

/* Whatever a kill leaves behind the checkpoint's step - more steps, half a record, a record that never
 * reached the disk - the file goes on after that step. */
static void resumed_equals_whole(void **state)
{
    (void)state;
    char *path = path_join(dir, "events.out.tfevents");
    size_t n, n_again, n_cut;
    run(0, 1, 200);
    unsigned char *whole = read_events(&n), *again;
    const size_t cuts[] = {0, 1, 11, 15, VERSION_BYTES, VERSION_BYTES + 5, n - 1, n};
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
        assert_int_equal(truncate(path, (off_t)cuts[i]), 0);
        run(0, 1, 200);
        again = read_events(&n_again);
        assert_same(whole, n, again, n_again);
        free(again);
    }
    run(120, 121, 130); /* of 200 steps, 120 stay */
    free(read_events(&n_cut));
    assert_true(n_cut < n);
    run(130, 131, 200);
    again = read_events(&n_again);
    assert_same(whole, n, again, n_again);
    free(again);

    whole[n / 2] ^= 1; /* a damaged record: it and what follows are given up, those before are kept */
    assert_int_equal(file_write_atomic(path, whole, n), 0);
    run(200, 201, 201);
    again = read_events(&n_again);
    assert_true(n_again > n / 3 && n_again < n / 2 + 100);
    free(again);
    free(whole);
    free(path);
}

static void not_open_does_nothing(void **state)
{
    (void)state;
    Events e = {0};
    Metrics m = {.n = 0};
    assert_int_equal(events_write(&e, 1, &m), 0);
    assert_int_equal(events_sync(&e), 0);
    events_close(&e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(records_by_hand, setup, teardown),
        cmocka_unit_test_setup_teardown(resumed_equals_whole, setup, teardown),
        cmocka_unit_test(not_open_does_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
